package embedded_test

import (
	"syscall"
	"time"
)

// dataSize is the size of the sealed data of an MDL registration.
const dataSize = 2200

// cpu returns the CPU time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
