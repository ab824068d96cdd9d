//go:build !linux

package redistest

import "syscall"

// processAttributes returns nothing where a process cannot be tied to another.
func processAttributes() *syscall.SysProcAttr { return nil }
