//go:build !windows && !plan9 && !solaris && !aix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// lockFile locks a file until it is closed, if no other open file has the lock.
func lockFile(file *os.File) (locked bool, err error) {
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// abandonFile closes a file that bbolt cannot close. bbolt's mapping of the file stays and
// would keep the lock, so abandonFile releases it.
func abandonFile(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}
