//go:build !race

package srp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a tracer records.
const (
	// traceWays is the way that the program takes: every branch, and whether it was
	// taken. What stands between two branches follows from that.
	traceWays = iota
	// traceSteps is every instruction, and the registers that it takes addresses
	// from. That takes a hundred times as long.
	traceSteps
	// traceReads is the same without products and squares in assembly, of which it is
	// the arguments. TestAssembly shows that these make all addresses there, and
	// traceWays the way.
	traceReads
)

const (
	// traceMarker names, in the environment, the operation to be traced.
	traceMarker = "SRP_TEST_TRACE"
	// traceInputs names its inputs.
	traceInputs = "SRP_TEST_TRACE_INPUTS"
)

var (
	// errNoTrace tells that this system lets nobody trace.
	errNoTrace = errors.New("processes cannot be traced here")
	// errTraceEnd tells that the process has ended before it was at its last mark.
	errTraceEnd = errors.New("the process has ended")
	// errTraceLimit tells that it took too long for that.
	errTraceLimit = errors.New("the limit on its time has ended the process")
)

// traceProducts are the routines in assembly that compute.
var traceProducts = regexp.MustCompile(`\.(ifmaProduct|ifmaSquare|adxMultiply|adxSquare)\d*$`)

// tracer follows one thread of a process that it has started. Between marks, which
// are calls of runtime.Breakpoint, the process runs by itself.
//
// The other threads stand still from the first mark on. Otherwise the scheduler
// would make the thread take turns.
//
// Of the allocator only the calls are recorded, with the sizes. What it does
// depends on what has been allocated before.
type tracer struct {
	pid, thread int
	// limit ends the process, and says in limited that it has.
	limit   *time.Timer
	limited atomic.Bool
	// ended tells that there is no process any more.
	ended bool
	// threads are those that there are, and whether they run.
	threads map[int]bool
	// mark is the address of the instruction that stops at a mark.
	mark uint64
	// slide is how much higher than this process the other has its functions.
	slide uint64
	code  map[uint64]traceInstruction
	runs  map[uint64]traceRun
	// stops are the addresses at which the process stops while its way is recorded,
	// and the bytes that were there.
	stops   map[uint64]byte
	planted bool
	// callers are where the calls that have not returned go on.
	callers []uint64
	regs    unix.PtraceRegs
}

// traceRun is a sequence of instructions without a choice.
type traceRun struct {
	instructions int
	// at is the address of the instruction past the run.
	at uint64
}

// startTrace starts this test binary anew, to do the operation of that name, and
// goes to its first mark. After the limit the process is killed. The caller must be
// locked to its thread, without end, and call close.
func startTrace(name string, inputs []string, limit time.Duration, log *os.File) (*tracer, error) {
	pinTrace()
	// Of two values for one variable the first counts.
	environment := append([]string{
		traceMarker + "=" + name, traceInputs + "=" + strings.Join(inputs, ","), "GOGC=off", "GOMAXPROCS=1",
		"GODEBUG=" + os.Getenv("GODEBUG") + ",asyncpreemptoff=1,memprofilerate=0",
	}, os.Environ()...)
	pid, err := syscall.ForkExec(os.Args[0], []string{os.Args[0], "-test.run=^TestTraceTarget$", "-test.timeout=0"}, &syscall.ProcAttr{
		Env: environment, Files: []uintptr{log.Fd(), log.Fd(), log.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTrace, err)
	}
	t := &tracer{
		pid: pid, threads: map[int]bool{},
		code: map[uint64]traceInstruction{}, runs: map[uint64]traceRun{}, stops: map[uint64]byte{},
	}
	t.limit = time.AfterFunc(limit, func() {
		t.limited.Store(true)
		_ = unix.Kill(pid, unix.SIGKILL)
	})
	if _, _, err := t.wait(); err != nil {
		t.close()
		return nil, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		t.close()
		return nil, fmt.Errorf("%w: %w", errNoTrace, err)
	}
	t.threads[pid] = true
	if err := t.first(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// pinTrace binds the thread, and the processes that it starts, to the processor it
// is on. Two threads that wait for each other all the time take twice as long on
// two of them. Where it is forbidden it is not needed.
func pinTrace() {
	var cpu uint32
	if _, _, e := syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); e == 0 {
		var set unix.CPUSet
		set.Set(int(cpu))
		_ = unix.SchedSetaffinity(0, &set)
	}
}

// close ends the process.
func (t *tracer) close() {
	t.limit.Stop()
	if t.ended {
		return
	}
	_ = unix.Kill(t.pid, unix.SIGKILL)
	for !t.ended {
		if _, _, err := t.wait(); err != nil && !t.ended {
			return
		}
	}
}

// wait waits until a thread stops or ends, and returns how. When the process has
// ended that is an error. The system tells that of the first thread, which is the
// process, only after it could tell it of all others, so this waits for any.
func (t *tracer) wait() (thread int, status unix.WaitStatus, err error) {
	for {
		// Only children of this thread: other tests have processes too. Time goes on
		// for them, and for the limit, while this one waits.
		tid, _, e := syscall.Syscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), unix.WALL|unix.WNOTHREAD, 0, 0, 0)
		thread = int(tid)
		switch {
		case e == unix.EINTR:
		case e != 0:
			return 0, 0, fmt.Errorf("wait: %w", e)
		case thread == t.pid && !status.Stopped():
			t.ended = true
			t.limit.Stop()
			return 0, 0, t.end(status)
		default:
			if t.threads[thread] = false; !status.Stopped() {
				delete(t.threads, thread)
			}
			return thread, status, nil
		}
	}
}

// end tells why the process has ended.
func (t *tracer) end(status unix.WaitStatus) error {
	switch {
	case t.limited.Load():
		return errTraceLimit
	case status.Signaled():
		return fmt.Errorf("%w: %v", errTraceEnd, status.Signal())
	}
	return fmt.Errorf("%w with status %d", errTraceEnd, status.ExitStatus())
}

// resume lets the thread go on, and waits until it stops again by itself. Signals
// are for other threads, if for anybody.
func (t *tracer) resume(request uintptr) error {
	for {
		if _, _, e := syscall.RawSyscall6(unix.SYS_PTRACE, request, uintptr(t.thread), 0, 0, 0, 0); e != 0 {
			return fmt.Errorf("resume: %w", e)
		}
		thread, status, err := t.wait()
		for err == nil && (thread != t.thread || !status.Stopped()) {
			// It is new, and stays where it is, or has ended.
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

// first goes to the first mark and stops all threads but the one that came there.
func (t *tracer) first() error {
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
			return t.freeze()
		case status.StopSignal() == unix.SIGTRAP, status.StopSignal() == unix.SIGSTOP:
			// A new thread, seen from the one that made it and from itself.
		default:
			signal = int(status.StopSignal())
		}
		t.threads[thread] = true
		if err := unix.PtraceCont(thread, signal); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	}
}

// freeze stops the other threads. New ones stop by themselves until they are resumed.
func (t *tracer) freeze() error {
	for tid, runs := range t.threads {
		// What has ended stands still too.
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
	own, err := traceStart("self")
	if err != nil {
		return err
	}
	other, err := traceStart(strconv.Itoa(t.pid))
	t.slide = other - own
	return err
}

// traceStart returns the lowest address of the executable of a process.
func traceStart(pid string) (start uint64, err error) {
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
			_, err = fmt.Sscanf(line, "%x-", &start)
			return start, err
		}
	}
	return 0, errors.New("the executable is not in memory")
}

// record lets the thread go on to the next mark, and from there to the one after,
// and records all that happens in between. It returns the number of instructions.
func (t *tracer) record(what int, to *traceRecord) (instructions int, err error) {
	defer func() {
		if err != nil && t.limited.Load() {
			err = errTraceLimit // which fails in many ways
		}
	}()
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return 0, err
	}
	if t.regs.Rip != t.mark+1 {
		return 0, t.astray(t.mark + 1)
	}
	follow := t.ways
	if what != traceWays {
		follow = func(to *traceRecord) (int, error) { return t.steps(to, what == traceReads) }
	}
	instructions, err = follow(to)
	if err != nil {
		return 0, err
	}
	if err := t.plant(false); err != nil {
		return 0, err
	}
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return 0, err
	}
	if t.regs.Rip != t.mark+1 {
		return 0, t.astray(t.mark + 1)
	}
	return instructions, nil
}

// steps goes instruction by instruction. It requires of each that it is what the
// decoder makes of it, which ways relies on. Products it may leave out.
func (t *tracer) steps(to *traceRecord, reads bool) (instructions int, err error) {
	for t.regs.Rip != t.mark {
		pc := t.regs.Rip
		i, err := t.instruction(pc)
		if err != nil {
			return 0, err
		}
		if i.kind == traceAllocate {
			to.add(pc, uint32(t.regs.Rax))
			if err := t.skip(pc + uint64(i.size)); err != nil {
				return 0, err
			}
			instructions++
			continue
		}
		if i.product && reads {
			arguments, err := t.arguments()
			if err != nil {
				return 0, err
			}
			to.add(pc, arguments)
			if err := t.skip(pc + uint64(i.size)); err != nil {
				return 0, err
			}
			instructions++
			continue
		}
		to.add(pc, t.addresses(i))
		next, known := t.after(i)
		if err := t.resume(unix.PTRACE_SINGLESTEP); err != nil {
			return 0, err
		}
		// Instructions for texts may repeat themselves.
		if known && t.regs.Rip != next && (!i.text || t.regs.Rip != pc) {
			return 0, t.astray(next)
		}
		if t.regs.Rip != pc {
			instructions++
		}
	}
	return instructions, nil
}

// ways goes from branch to branch.
func (t *tracer) ways(to *traceRecord) (instructions int, err error) {
	t.callers = t.callers[:0]
	if err := t.plant(true); err != nil {
		return 0, err
	}
	for pc := t.regs.Rip; ; {
		n, at, err := t.run(pc)
		instructions += n
		if err != nil {
			return 0, err
		}
		if err := t.reach(pc, at, n); err != nil {
			return 0, err
		}
		if at == t.mark {
			return instructions, nil
		}
		i, err := t.instruction(at)
		if err != nil {
			return 0, err
		}
		instructions++
		next, known := t.after(i)
		detail := uint32(next)
		switch {
		case i.kind == traceAllocate:
			next, detail = at+uint64(i.size), uint32(t.regs.Rax)
			err = t.skip(next)
		case !known:
			next, err = t.over(at, i)
			detail = uint32(next)
		}
		if err != nil {
			return 0, err
		}
		to.add(at, detail)
		pc = next
	}
}

// run follows the instructions from pc to one that has a choice. It returns how
// many there are and the address of that one.
func (t *tracer) run(pc uint64) (instructions int, at uint64, err error) {
	for {
		r, ok := t.runs[pc]
		if !ok {
			r.at = pc
			for {
				i, err := t.instruction(r.at)
				if err != nil {
					return 0, 0, err
				}
				if i.kind != traceNext && i.kind != traceJump || r.at == t.mark {
					break
				}
				r.instructions++
				r.at += uint64(i.size)
				if i.kind == traceJump {
					r.at = i.target
				}
			}
			t.runs[pc] = r
		}
		instructions += r.instructions
		pc = r.at
		switch i := t.code[pc]; {
		case pc == t.mark:
			return instructions, pc, nil
		case i.kind == traceCall:
			t.callers = append(t.callers, pc+uint64(i.size))
			pc = i.target
		case i.kind == traceReturn && len(t.callers) > 0:
			pc = t.callers[len(t.callers)-1]
			t.callers = t.callers[:len(t.callers)-1]
		default:
			return instructions, pc, nil
		}
		instructions++
	}
}

// reach lets the thread go on at pc, and requires that it stops at the other
// address, so many instructions later.
func (t *tracer) reach(pc, at uint64, instructions int) error {
	if err := t.jump(pc); err != nil || instructions == 0 {
		return err
	}
	if _, ok := t.stops[at]; !ok && at != t.mark {
		var b [1]byte
		if _, err := unix.PtracePeekText(t.thread, uintptr(at), b[:]); err != nil {
			return fmt.Errorf("read code: %w", err)
		}
		t.stops[at] = b[0]
		if err := t.stop(at, true); err != nil {
			return err
		}
	}
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return err
	}
	if t.regs.Rip != at+1 {
		return t.astray(at + 1)
	}
	return t.jump(at)
}

// jump sets where the thread goes on.
func (t *tracer) jump(pc uint64) error {
	if t.regs.Rip == pc {
		return nil
	}
	t.regs.Rip = pc
	if _, _, e := syscall.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_POKEUSR, uintptr(t.thread), unsafe.Offsetof(t.regs.Rip), uintptr(pc), 0, 0); e != 0 {
		return fmt.Errorf("registers: %w", e)
	}
	return nil
}

// over executes one instruction, at which the thread stands, and returns where it goes on.
func (t *tracer) over(at uint64, i traceInstruction) (uint64, error) {
	if err := t.stop(at, false); err != nil {
		return 0, err
	}
	if err := t.resume(unix.PTRACE_SINGLESTEP); err != nil {
		return 0, err
	}
	if err := t.stop(at, true); err != nil {
		return 0, err
	}
	if i.call {
		t.callers = append(t.callers, at+uint64(i.size))
	}
	return t.regs.Rip, nil
}

// skip lets the thread go on until the call that it stands at returns.
func (t *tracer) skip(to uint64) error {
	planted, stack := t.planted, t.regs.Rsp
	if err := t.plant(false); err != nil {
		return err
	}
	var b [1]byte
	if _, err := unix.PtracePeekText(t.thread, uintptr(to), b[:]); err != nil {
		return fmt.Errorf("read code: %w", err)
	}
	if _, err := unix.PtracePokeText(t.thread, uintptr(to), []byte{0xCC}); err != nil {
		return fmt.Errorf("write code: %w", err)
	}
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return err
	}
	if t.regs.Rip != to+1 || t.regs.Rsp != stack {
		return t.astray(to)
	}
	if _, err := unix.PtracePokeText(t.thread, uintptr(to), b[:]); err != nil {
		return fmt.Errorf("write code: %w", err)
	}
	if err := t.jump(to); err != nil {
		return err
	}
	return t.plant(planted)
}

// stop makes the process stop at an address, or not any more.
func (t *tracer) stop(at uint64, yes bool) error {
	b, ok := t.stops[at]
	if !ok {
		return nil
	}
	if yes {
		b = 0xCC
	}
	if _, err := unix.PtracePokeText(t.thread, uintptr(at), []byte{b}); err != nil {
		return fmt.Errorf("write code: %w", err)
	}
	return nil
}

// plant makes the process stop at all known stops, or at none.
func (t *tracer) plant(yes bool) error {
	if t.planted == yes {
		return nil
	}
	t.planted = yes
	for at := range t.stops {
		if err := t.stop(at, yes); err != nil {
			return err
		}
	}
	return nil
}

// instruction returns the instruction at an address.
func (t *tracer) instruction(at uint64) (traceInstruction, error) {
	if i, ok := t.code[at]; ok {
		return i, nil
	}
	var b [traceMaxSize]byte
	if _, err := unix.PtracePeekText(t.thread, uintptr(at), b[:]); err != nil {
		return traceInstruction{}, fmt.Errorf("read code: %w", err)
	}
	for i := range b {
		if original, ok := t.stops[at+uint64(i)]; ok {
			b[i] = original
		}
	}
	i, err := decodeTrace(b[:], at)
	if err != nil {
		return i, fmt.Errorf("%w: % x in %s", err, b, t.place(at))
	}
	if f := runtime.FuncForPC(uintptr(i.target - t.slide)); i.kind == traceCall && f != nil {
		file, _ := f.FileLine(f.Entry())
		if strings.HasPrefix(f.Name(), "runtime.mallocgc") {
			i.kind = traceAllocate
		}
		i.product = strings.HasSuffix(file, ".s") && traceProducts.MatchString(f.Name())
	}
	t.code[at] = i
	return i, nil
}

// after returns where the thread goes on after the instruction that it stands at,
// if that can be told.
func (t *tracer) after(i traceInstruction) (next uint64, known bool) {
	switch {
	case i.kind == traceNext, i.kind == traceBranch && !traceTaken(i.condition, t.regs.Eflags):
		return t.regs.Rip + uint64(i.size), true
	case i.kind == traceBranch, i.kind == traceJump, i.kind == traceCall:
		return i.target, true
	}
	return 0, false
}

// addresses returns a number made from the registers that an instruction takes
// addresses from.
func (t *tracer) addresses(i traceInstruction) uint32 {
	h := traceHash(t.regs.Rsp)
	if i.base != traceNone {
		h.add(t.register(i.base))
	}
	if i.index != traceNone {
		h.add(t.register(i.index) + 1)
	}
	if i.text {
		h.add(t.regs.Rsi)
		h.add(t.regs.Rdi)
	}
	return h.sum()
}

// arguments returns a number made from the arguments of a product or a square in
// assembly, of which each has five at least.
func (t *tracer) arguments() (uint32, error) {
	var b [5 * 8]byte
	if _, err := unix.PtracePeekData(t.thread, uintptr(t.regs.Rsp), b[:]); err != nil {
		return 0, fmt.Errorf("read the stack: %w", err)
	}
	h := traceHash(t.regs.Rsp)
	for i := range len(b) / 8 {
		h.add(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return h.sum(), nil
}

// traceHash makes one number of many.
type traceHash uint64

func (h *traceHash) add(v uint64) {
	*h = (*h ^ traceHash(v)) * 0x9E3779B97F4A7C15
	*h ^= *h >> 29
}

func (h *traceHash) sum() uint32 {
	h.add(0)
	return uint32(*h >> 32)
}

// register returns a register by the number that instructions have for it.
func (t *tracer) register(n int) uint64 {
	r := &t.regs
	return [...]uint64{
		r.Rax, r.Rcx, r.Rdx, r.Rbx, r.Rsp, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
	}[n]
}

func (t *tracer) astray(expected uint64) error {
	return fmt.Errorf("the process is in %s and should be in %s", t.place(t.regs.Rip), t.place(expected))
}

// place names the function and the line of an address.
func (t *tracer) place(pc uint64) string {
	f := runtime.FuncForPC(uintptr(pc - t.slide))
	if f == nil {
		return fmt.Sprintf("%#x", pc)
	}
	file, line := f.FileLine(uintptr(pc - t.slide))
	return fmt.Sprintf("%s (%s:%d)", f.Name(), file, line)
}

// traceRecord compares what happens with what happened the first time.
type traceRecord struct {
	events []uint64
	again  bool
	at     int
	// place is the first event that differs, and moved tells that it did not differ
	// in the instruction.
	differs bool
	pc      uint64
	moved   bool
}

// add takes an event: an instruction and what it depends on.
func (r *traceRecord) add(pc uint64, detail uint32) {
	event := uint64(detail)<<32 | uint64(uint32(pc))
	r.at++
	switch {
	case !r.again:
		r.events = append(r.events, event)
	case !r.differs && (r.at > len(r.events) || r.events[r.at-1] != event):
		r.differs, r.pc = true, pc
		r.moved = r.at <= len(r.events) && uint32(r.events[r.at-1]) == uint32(pc)
	}
}

// next ends the events of one time.
func (r *traceRecord) next() (differs bool, pc uint64, moved bool) {
	// The first time may have gone on.
	differs, pc, moved = r.differs || r.at < len(r.events), r.pc, r.moved
	r.again, r.at, r.differs, r.pc = true, 0, false, 0
	return differs, pc, moved
}
