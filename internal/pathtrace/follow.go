//go:build linux && amd64

package pathtrace

import (
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// run is a sequence of instructions with one possible successor each.
type run struct {
	instructions int
	end          uint64 // address of the instruction after the run
}

// record lets the thread run to the next mark and records what it does from there to the
// one after. It returns the number of instructions.
func (t *tracer) record(to *recording) (instructions int, err error) {
	defer func() {
		if err != nil && t.ctx.Err() != nil {
			err = t.ctx.Err() // The process was killed, which makes any call fail.
		}
	}()
	if err := t.runToMark(); err != nil {
		return 0, err
	}
	follow := t.followBranches
	if t.Detail == Instructions {
		follow = t.followInstructions
	}
	if instructions, err = follow(to); err != nil {
		return 0, err
	}
	if _, err := t.unplant(); err != nil {
		return 0, err
	}
	return instructions, t.runToMark()
}

// followInstructions executes one instruction after the other. It also verifies that the
// decoder, which followBranches relies on, is right about the size of each and its successor.
func (t *tracer) followInstructions(to *recording) (instructions int, err error) {
	for t.regs.Rip != t.mark {
		pc := t.regs.Rip
		i, err := t.instructionAt(pc)
		if err != nil {
			return 0, err
		}
		if i.kind == allocatorCall || i.skippable {
			detail := uint32(t.regs.Rax)
			if i.skippable {
				if detail, err = t.arguments(); err != nil {
					return 0, err
				}
			}
			to.add(pc, detail)
			if err := t.runToReturn(pc + uint64(i.size)); err != nil {
				return 0, err
			}
			instructions++
			continue
		}
		to.add(pc, t.addressRegisters(i))
		next, known := t.successor(i)
		if err := t.resume(unix.PTRACE_SINGLESTEP); err != nil {
			return 0, err
		}
		// A string instruction can repeat itself.
		repeats := i.usesRSIAndRDI && t.regs.Rip == pc
		if known && !repeats {
			if err := t.expect(next); err != nil {
				return 0, err
			}
		}
		if t.regs.Rip != pc {
			instructions++
		}
	}
	return instructions, nil
}

// followBranches lets the thread run from branch to branch.
func (t *tracer) followBranches(to *recording) (instructions int, err error) {
	t.callers = t.callers[:0]
	if err := t.plant(); err != nil {
		return 0, err
	}
	for pc := t.regs.Rip; ; {
		n, at, err := t.nextBranch(pc)
		instructions += n
		if err != nil {
			return 0, err
		}
		if err := t.runTo(pc, at, n); err != nil {
			return 0, err
		}
		if at == t.mark {
			return instructions, nil
		}
		i, err := t.instructionAt(at)
		if err != nil {
			return 0, err
		}
		instructions++
		next, known := t.successor(i)
		detail := uint32(next)
		switch {
		case i.kind == allocatorCall:
			next, detail = at+uint64(i.size), uint32(t.regs.Rax)
			err = t.runToReturn(next)
		case !known:
			next, err = t.stepOver(at, i)
			detail = uint32(next)
		}
		if err != nil {
			return 0, err
		}
		to.add(at, detail)
		pc = next
	}
}

// nextBranch returns the address of the first instruction from pc on whose successor the
// code does not determine, or of the mark, and the number of instructions before it.
func (t *tracer) nextBranch(pc uint64) (instructions int, at uint64, err error) {
	for {
		r, err := t.runAt(pc)
		if err != nil {
			return 0, 0, err
		}
		instructions += r.instructions
		pc = r.end
		switch i := t.instructions[pc]; {
		case pc == t.mark:
			return instructions, pc, nil
		case i.kind == call:
			t.callers = append(t.callers, pc+uint64(i.size))
			pc = i.target
		case i.kind == ret && len(t.callers) > 0:
			pc = t.callers[len(t.callers)-1]
			t.callers = t.callers[:len(t.callers)-1]
		default:
			return instructions, pc, nil
		}
		instructions++
	}
}

// runAt returns the run that begins at pc.
func (t *tracer) runAt(pc uint64) (run, error) {
	if r, ok := t.runs[pc]; ok {
		return r, nil
	}
	r := run{end: pc}
	for {
		i, err := t.instructionAt(r.end)
		if err != nil {
			return run{}, err
		}
		if i.kind != sequential && i.kind != jump || r.end == t.mark {
			t.runs[pc] = r
			return r, nil
		}
		r.instructions++
		r.end += uint64(i.size)
		if i.kind == jump {
			r.end = i.target
		}
	}
}

// runTo lets the thread continue at pc and requires that it stops at another address, that
// many instructions later.
func (t *tracer) runTo(pc, at uint64, instructions int) error {
	if err := t.setPC(pc); err != nil || instructions == 0 {
		return err
	}
	if err := t.addBreakpoint(at); err != nil {
		return err
	}
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return err
	}
	if err := t.expect(at + 1); err != nil {
		return err
	}
	return t.setPC(at)
}

// stepOver executes the instruction that the thread is at, and returns the address of its
// successor.
func (t *tracer) stepOver(at uint64, i instruction) (uint64, error) {
	original, ok := t.breakpoints[at]
	if ok {
		if err := t.pokeByte(at, original); err != nil {
			return 0, err
		}
	}
	if err := t.resume(unix.PTRACE_SINGLESTEP); err != nil {
		return 0, err
	}
	if ok {
		if err := t.pokeByte(at, breakpoint); err != nil {
			return 0, err
		}
	}
	if i.indirectCall {
		t.callers = append(t.callers, at+uint64(i.size))
	}
	return t.regs.Rip, nil
}

// runToReturn lets the thread run until the call that it is at returns to an address.
func (t *tracer) runToReturn(to uint64) error {
	stack := t.regs.Rsp
	planted, err := t.unplant()
	if err != nil {
		return err
	}
	original, err := t.peekByte(to)
	if err != nil {
		return err
	}
	if err := t.pokeByte(to, breakpoint); err != nil {
		return err
	}
	if err := t.resume(unix.PTRACE_CONT); err != nil {
		return err
	}
	if err := t.expect(to + 1); err != nil {
		return err
	}
	if t.regs.Rsp != stack {
		return fmt.Errorf("another call returned to %s", t.location(to))
	}
	if err := t.pokeByte(to, original); err != nil {
		return err
	}
	if err := t.setPC(to); err != nil || !planted {
		return err
	}
	return t.plant()
}

// instructionAt returns the instruction at an address.
func (t *tracer) instructionAt(at uint64) (instruction, error) {
	if i, ok := t.instructions[at]; ok {
		return i, nil
	}
	var b [maxInstructionSize]byte
	if _, err := unix.PtracePeekText(t.thread, uintptr(at), b[:]); err != nil {
		return instruction{}, fmt.Errorf("read code: %w", err)
	}
	for i := range b {
		if original, ok := t.breakpoints[at+uint64(i)]; ok {
			b[i] = original
		}
	}
	i, err := decode(b[:], at)
	if err != nil {
		return i, fmt.Errorf("%w: % x in %s", err, b, t.location(at))
	}
	if f := runtime.FuncForPC(uintptr(i.target - t.offset)); i.kind == call && f != nil {
		if strings.HasPrefix(f.Name(), "runtime.mallocgc") {
			i.kind = allocatorCall
		}
		// Go code calls a function in assembly by way of a wrapper with the same name.
		file, _ := f.FileLine(f.Entry())
		i.skippable = t.Detail == Instructions && t.Skip != nil && strings.HasSuffix(file, ".s") && t.Skip.MatchString(f.Name())
	}
	t.instructions[at] = i
	return i, nil
}

// successor returns the address at which the thread continues after the instruction that
// it is at, if the code and the flags determine it.
func (t *tracer) successor(i instruction) (next uint64, known bool) {
	switch {
	case i.kind == sequential, i.kind == branch && !taken(i.condition, t.regs.Eflags):
		return t.regs.Rip + uint64(i.size), true
	case i.kind == branch, i.kind == jump, i.kind == call:
		return i.target, true
	}
	return 0, false
}

// addressRegisters returns a hash of the registers that the address of the operand
// depends on, and of the stack pointer.
func (t *tracer) addressRegisters(i instruction) uint32 {
	h := hash(t.regs.Rsp)
	if i.base != noRegister {
		h.add(t.register(i.base))
	}
	if i.index != noRegister {
		h.add(t.register(i.index) + 1)
	}
	if i.usesRSIAndRDI {
		h.add(t.regs.Rsi)
		h.add(t.regs.Rdi)
	}
	return h.sum()
}
