package redistest

import "syscall"

// processAttributes returns attributes that make the kernel kill the server when the thread
// that started it ends, so that no server outlives the test process.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
