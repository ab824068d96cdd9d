package redistest

import "syscall"

// processAttributes makes the server die with the test process, however that ends.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
