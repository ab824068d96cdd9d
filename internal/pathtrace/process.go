//go:build linux && amd64

package pathtrace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// breakpoint is the instruction INT3, which stops the process.
const breakpoint = 0xCC

// tracer traces one thread of the process that it has started. The process runs freely
// up to each call of runtime.Breakpoint in Serve, a mark. From the first mark on all
// other threads are stopped, or the scheduler would switch between them.
type tracer struct {
	Config
	ctx         context.Context
	stopKilling func() bool
	pid, thread int
	// exited is true when the process does not exist any more.
	exited bool
	// threads has an entry for each thread: whether it runs.
	threads map[int]bool
	regs    unix.PtraceRegs
	// mark is the address of the instruction that stops the process at a mark.
	mark uint64
	// offset is the distance between the code of the process and that of this one.
	offset uint64
	// instructions and runs cache what the code contains, by address.
	instructions map[uint64]instruction
	runs         map[uint64]run
	// breakpoints are the addresses at which the process stops while branches are
	// recorded, with the byte that belongs there. They are in the code if planted.
	breakpoints map[uint64]byte
	planted     bool
	// callers are the return addresses of the calls in progress.
	callers []uint64
}

// start starts this test binary once more, with c.Test alone, and lets it run up to the
// first mark. The caller must be locked to its thread, and call close.
func start(ctx context.Context, c Config, output *os.File) (*tracer, error) {
	pin()
	// The first of several values of a variable counts.
	environment := append([]string{
		functionVariable + "=" + c.Function, inputsVariable + "=" + strings.Join(c.Inputs, ","), "GOGC=off", "GOMAXPROCS=1",
		"GODEBUG=" + os.Getenv("GODEBUG") + ",asyncpreemptoff=1,memprofilerate=0",
	}, os.Environ()...)
	pid, err := syscall.ForkExec(os.Args[0], []string{os.Args[0], "-test.run=^" + c.Test + "$", "-test.timeout=0"}, &syscall.ProcAttr{
		Env: environment, Files: []uintptr{output.Fd(), output.Fd(), output.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	t := &tracer{
		Config: c, ctx: ctx, pid: pid, threads: map[int]bool{pid: true},
		instructions: map[uint64]instruction{}, runs: map[uint64]run{}, breakpoints: map[uint64]byte{},
	}
	t.stopKilling = context.AfterFunc(ctx, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	if err := t.runToFirstMark(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// pin binds this thread, and the processes that it starts, to the processor it is on.
// Two processes that always wait for each other take twice as long on two processors.
// A failure only costs time.
func pin() {
	var cpu uint32
	if _, _, e := syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); e == 0 {
		var set unix.CPUSet
		set.Set(int(cpu))
		_ = unix.SchedSetaffinity(0, &set)
	}
}

// close ends the process.
func (t *tracer) close() {
	t.stopKilling()
	if t.exited {
		return
	}
	_ = unix.Kill(t.pid, unix.SIGKILL)
	for !t.exited {
		if _, _, err := t.wait(); err != nil && !t.exited {
			return
		}
	}
}

// wait waits until any thread stops or ends, and returns how. It returns an error when the
// process has ended. Linux reports the end of the first thread, which stands for the
// process, after those of all others.
func (t *tracer) wait() (thread int, status unix.WaitStatus, err error) {
	for {
		// WNOTHREAD: other tests trace processes of their own from other threads.
		// Syscall6, unlike RawSyscall6, lets other goroutines run in the meantime.
		tid, _, e := syscall.Syscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), unix.WALL|unix.WNOTHREAD, 0, 0, 0)
		thread = int(tid)
		switch {
		case e == unix.EINTR:
		case e != 0:
			return 0, 0, fmt.Errorf("wait: %w", e)
		case thread == t.pid && !status.Stopped():
			t.exited = true
			t.stopKilling()
			return 0, 0, t.exitError(status)
		default:
			if t.threads[thread] = false; !status.Stopped() {
				delete(t.threads, thread)
			}
			return thread, status, nil
		}
	}
}

// exitError says why the process has ended.
func (t *tracer) exitError(status unix.WaitStatus) error {
	switch {
	case t.ctx.Err() != nil:
		return t.ctx.Err()
	case status.Signaled():
		return fmt.Errorf("%w: %v", ErrExited, status.Signal())
	}
	return fmt.Errorf("%w with status %d", ErrExited, status.ExitStatus())
}

// resume resumes the thread with PTRACE_CONT or PTRACE_SINGLESTEP, waits until it stops
// again, and reads its registers. It discards signals: they are for other threads.
func (t *tracer) resume(request uintptr) error {
	for {
		if _, _, e := syscall.RawSyscall6(unix.SYS_PTRACE, request, uintptr(t.thread), 0, 0, 0, 0); e != 0 {
			return fmt.Errorf("resume: %w", e)
		}
		thread, status, err := t.wait()
		for err == nil && (thread != t.thread || !status.Stopped()) {
			// A new thread, which remains stopped, or one that has ended.
			thread, status, err = t.wait()
		}
		switch signal := status.StopSignal(); {
		case err != nil:
			return err
		case signal == unix.SIGTRAP:
			if _, _, e := syscall.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGS, uintptr(t.thread), 0, uintptr(unsafe.Pointer(&t.regs)), 0, 0); e != 0 {
				return fmt.Errorf("registers: %w", e)
			}
			return nil
		case signal == unix.SIGSEGV || signal == unix.SIGBUS || signal == unix.SIGILL || signal == unix.SIGFPE:
			return fmt.Errorf("the process has a fault: %v", signal)
		}
	}
}

// runToFirstMark lets the process run up to the first mark and stops all threads but the
// one that reached it.
func (t *tracer) runToFirstMark() error {
	if _, _, err := t.wait(); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(t.pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	t.threads[t.pid] = true
	if err := unix.PtraceCont(t.pid, 0); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	for {
		thread, status, err := t.wait()
		if err != nil {
			return err
		}
		if !status.Stopped() {
			continue
		}
		signal := 0
		switch {
		case status.StopSignal() == unix.SIGTRAP && status.TrapCause() == 0:
			t.thread = thread
			return t.stopOthers()
		case status.StopSignal() == unix.SIGTRAP, status.StopSignal() == unix.SIGSTOP:
			// A new thread, as reported by its creator or by itself.
		default:
			signal = int(status.StopSignal())
		}
		t.threads[thread] = true
		if err := unix.PtraceCont(thread, signal); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	}
}

// stopOthers stops the other threads. New threads are stopped from the start.
func (t *tracer) stopOthers() error {
	for tid, runs := range t.threads {
		// An error means that the thread has ended.
		if runs && unix.Tgkill(t.pid, tid, unix.SIGSTOP) != nil {
			delete(t.threads, tid)
		}
	}
	for runs := true; runs; {
		runs = false
		for _, r := range t.threads {
			runs = runs || r
		}
		if runs {
			if _, _, err := t.wait(); err != nil {
				return err
			}
		}
	}
	if err := unix.PtraceGetRegs(t.thread, &t.regs); err != nil {
		return fmt.Errorf("registers: %w", err)
	}
	t.mark = t.regs.Rip - 1
	own, err := codeAddress("self")
	if err != nil {
		return err
	}
	other, err := codeAddress(strconv.Itoa(t.pid))
	t.offset = other - own
	return err
}

// codeAddress returns the lowest address of the executable in the memory of a process.
func codeAddress(pid string) (address uint64, err error) {
	name, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil {
		return 0, fmt.Errorf("executable: %w", err)
	}
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		return 0, fmt.Errorf("addresses: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, " "+name+"\n") {
			_, err = fmt.Sscanf(line, "%x-", &address)
			return address, err
		}
	}
	return 0, errors.New("the executable is not in memory")
}

// runToMark lets the thread run freely up to the next mark.
func (t *tracer) runToMark() error {
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return err
	}
	return t.expect(t.mark + 1)
}

// expect returns an error unless the thread is at an address.
func (t *tracer) expect(pc uint64) error {
	if t.regs.Rip == pc {
		return nil
	}
	return fmt.Errorf("the process is in %s and should be in %s", t.location(t.regs.Rip), t.location(pc))
}

// setPC sets the address at which the thread continues.
func (t *tracer) setPC(pc uint64) error {
	if t.regs.Rip == pc {
		return nil
	}
	t.regs.Rip = pc
	if _, _, e := syscall.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_POKEUSR, uintptr(t.thread), unsafe.Offsetof(t.regs.Rip), uintptr(pc), 0, 0); e != 0 {
		return fmt.Errorf("registers: %w", e)
	}
	return nil
}

// peekByte returns a byte of the code.
func (t *tracer) peekByte(at uint64) (byte, error) {
	var b [1]byte
	if _, err := unix.PtracePeekText(t.thread, uintptr(at), b[:]); err != nil {
		return 0, fmt.Errorf("read code: %w", err)
	}
	return b[0], nil
}

// pokeByte changes a byte of the code.
func (t *tracer) pokeByte(at uint64, b byte) error {
	if _, err := unix.PtracePokeText(t.thread, uintptr(at), []byte{b}); err != nil {
		return fmt.Errorf("write code: %w", err)
	}
	return nil
}

// addBreakpoint makes the process stop at an address from now on.
func (t *tracer) addBreakpoint(at uint64) error {
	if _, ok := t.breakpoints[at]; ok || at == t.mark {
		return nil
	}
	b, err := t.peekByte(at)
	if err != nil {
		return err
	}
	t.breakpoints[at] = b
	return t.pokeByte(at, breakpoint)
}

// plant writes all breakpoints into the code.
func (t *tracer) plant() error {
	t.planted = true
	for at := range t.breakpoints {
		if err := t.pokeByte(at, breakpoint); err != nil {
			return err
		}
	}
	return nil
}

// unplant restores the code. It reports whether breakpoints were planted.
func (t *tracer) unplant() (were bool, err error) {
	if !t.planted {
		return false, nil
	}
	t.planted = false
	for at, original := range t.breakpoints {
		if err := t.pokeByte(at, original); err != nil {
			return true, err
		}
	}
	return true, nil
}

// arguments returns a hash of the stack pointer and of the first five arguments of the
// function in assembly that the thread is about to call.
func (t *tracer) arguments() (uint32, error) {
	var b [5 * 8]byte
	if _, err := unix.PtracePeekData(t.thread, uintptr(t.regs.Rsp), b[:]); err != nil {
		return 0, fmt.Errorf("read the stack: %w", err)
	}
	h := hash(t.regs.Rsp)
	for i := range len(b) / 8 {
		h.add(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return h.sum(), nil
}

// register returns a general register by the number that instructions have for it.
func (t *tracer) register(n int) uint64 {
	r := &t.regs
	return [...]uint64{
		r.Rax, r.Rcx, r.Rdx, r.Rbx, r.Rsp, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
	}[n]
}

// location returns the function and the line of an address.
func (t *tracer) location(pc uint64) string {
	f := runtime.FuncForPC(uintptr(pc - t.offset))
	if f == nil {
		return fmt.Sprintf("%#x", pc)
	}
	file, line := f.FileLine(uintptr(pc - t.offset))
	return fmt.Sprintf("%s (%s:%d)", f.Name(), file, line)
}

// hash makes one number of several.
type hash uint64

func (h *hash) add(v uint64) {
	*h = (*h ^ hash(v)) * 0x9E3779B97F4A7C15
	*h ^= *h >> 29
}

func (h *hash) sum() uint32 {
	h.add(0)
	return uint32(*h >> 32)
}
