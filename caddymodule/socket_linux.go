package caddymodule

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// endUnacknowledged has the kernel end a new connection when bytes that it sent are not
// acknowledged for acknowledgeTimeout. What they asked for has no known outcome.
func endUnacknowledged(network, _ string, socket syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := socket.Control(func(descriptor uintptr) {
		failed = unix.SetsockoptInt(int(descriptor), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(acknowledgeTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
