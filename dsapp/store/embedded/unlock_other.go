//go:build windows || plan9 || solaris || aix

package embedded

import "os"

// lockFile does nothing: bbolt has locked its own file.
func lockFile(*os.File) (locked bool, err error) { return true, nil }

// abandonFile closes a file that bbolt cannot close. That releases its lock.
func abandonFile(file *os.File) error { return file.Close() }
