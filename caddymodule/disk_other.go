//go:build !linux

package caddymodule

// freeSpace does not know how much is free on this system.
func freeSpace(string) (free int64, known bool) { return 0, false }
