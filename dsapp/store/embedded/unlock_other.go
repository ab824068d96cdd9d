//go:build windows || plan9 || solaris || aix

package embedded

import "os"

// abandonFile closes a file that bbolt cannot close. That releases its lock.
func abandonFile(file *os.File) error { return file.Close() }
