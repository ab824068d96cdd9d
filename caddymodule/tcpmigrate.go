package caddymodule

import (
	"bytes"
	"os"
	"sync"
)

// tcpMigrateReqFile holds the kernel setting net.ipv4.tcp_migrate_req. A reload opens a
// new listener and closes the old one. If the setting is 1, Linux hands connections
// that wait to be accepted on the old listener to the new one; if it is 0, Linux resets
// them. Linux before 5.14 and other systems have no such file.
const tcpMigrateReqFile = "/proc/sys/net/ipv4/tcp_migrate_req"

// warnOfResetsOnce limits the warning to one for the process.
var warnOfResetsOnce sync.Once

// reloadResetsConnections reports whether the setting in file exists and is 0.
func reloadResetsConnections(file string) bool {
	value, err := os.ReadFile(file)
	return err == nil && bytes.HasPrefix(value, []byte("0"))
}
