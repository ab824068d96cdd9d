//go:build !linux

package caddymodule

import "syscall"

// endUnacknowledged does nothing: only Linux has the option.
func endUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
