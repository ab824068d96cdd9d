package caddymodule

import "golang.org/x/sys/unix"

// freeSpace returns how many bytes are free on the disk of a folder.
func freeSpace(folder string) (free int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // it has another type on other processors
}
