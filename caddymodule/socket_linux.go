package caddymodule

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// setUserTimeout makes the kernel end a new TCP connection when sent bytes are not
// acknowledged within userTimeout. The outcome of the command in these bytes is unknown.
func setUserTimeout(network, _ string, socket syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := socket.Control(func(descriptor uintptr) {
		failed = unix.SetsockoptInt(int(descriptor), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
