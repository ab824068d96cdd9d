//go:build windows || plan9 || solaris || aix

package embedded

import "os"

// abandonFile closes a file that bbolt will not close. Its lock ends with it.
func abandonFile(file *os.File) error { return file.Close() }
