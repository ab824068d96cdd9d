//go:build !windows && !plan9 && !solaris && !aix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// abandonFile closes a file that bbolt will not close. Its mapping stays, and would
// keep the lock.
func abandonFile(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}
