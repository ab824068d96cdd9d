//go:build !linux

package caddymodule

import "syscall"

// setUserTimeout does nothing, because only Linux has the socket option.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
