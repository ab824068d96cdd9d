//go:build !windows && !plan9 && !solaris && !aix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// abandonFile closes a file that bbolt cannot close. bbolt's mapping of the file stays and
// would keep the lock, so abandonFile releases it.
func abandonFile(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}
