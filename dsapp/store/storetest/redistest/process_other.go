//go:build !linux

package redistest

import "syscall"

// processAttributes returns nil: only Linux can kill a process when another ends.
func processAttributes() *syscall.SysProcAttr { return nil }
