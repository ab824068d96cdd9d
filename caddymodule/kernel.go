package caddymodule

import (
	"bytes"
	"os"
	"sync"
)

// migrateRequests is whether Linux hands connections that wait for a listener to
// another one on its port when the listener is closed. If not, it resets them, and a
// reload, which opens a new listener and closes the old one, can meet some. Other
// kernels and Linux before 5.14 have no such file.
const migrateRequests = "/proc/sys/net/ipv4/tcp_migrate_req"

// warnOfResets has the process warn once.
var warnOfResets sync.Once

// resetsConnections tells from the file of the setting that connections are reset that
// need not be.
func resetsConnections(setting string) bool {
	value, err := os.ReadFile(setting)
	return err == nil && bytes.HasPrefix(value, []byte("0"))
}
