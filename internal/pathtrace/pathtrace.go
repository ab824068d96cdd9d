//go:build linux && amd64

// Package pathtrace compares the paths that a function takes through its machine code for
// different inputs, to show that neither its branches nor the addresses it accesses
// depend on secrets. It needs no performance counters, which virtual machines seldom have.
//
// A test binary starts itself once more, under ptrace. That process sets one input after
// the other and calls the function, and stops before and after each call. In between this
// process records what the function executes.
//
//   - Compare (this file) starts the process and compares the recordings.
//   - Serve (target.go) is what the test calls in the process that is traced.
//   - process.go starts, steps and stops the process.
//   - follow.go records its path, branch by branch or instruction by instruction.
//   - decode.go decodes the instructions.
//
// The process is single-threaded while it is traced, and does not collect garbage.
// The memory allocator of Go takes paths that depend on earlier allocations, so only
// the calls of it and the requested sizes are recorded.
//
// The package works on linux/amd64 only. A build for the race detector contains other
// instructions than the one that is shipped, so its traces prove nothing.
package pathtrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
)

var (
	// ErrNotPermitted means that this system does not let the process trace another one.
	ErrNotPermitted = errors.New("processes cannot be traced here")
	// ErrExited means that the traced process ended before its last input was done.
	ErrExited = errors.New("the traced process has ended")
)

// Detail is what a recording contains.
type Detail int

const (
	// Branches records every conditional branch with its outcome, and every other
	// instruction whose successor the code alone does not determine. That determines
	// all executed instructions, but says nothing about addresses of data.
	Branches Detail = iota
	// Instructions records every instruction with the registers that the address of its
	// operand depends on. It takes a hundred times as long as Branches.
	Instructions
)

// Config says what to trace.
type Config struct {
	// Test is the name of the test that calls Serve.
	Test string
	// Function is the name that Serve knows the function by.
	Function string
	// Inputs are the names of the inputs. They contain no comma.
	Inputs []string
	Detail Detail
	// Skip matches the names of functions in assembly that Instructions does not step
	// through. Their first five arguments are recorded instead; they must have as many.
	// It may be nil.
	Skip *regexp.Regexp
}

// Result is what Compare found. Both slices have one entry for each input.
type Result struct {
	// Instructions are the numbers of executed instructions.
	Instructions []int
	// Differences say where the execution first differs from the one with the first
	// input. An empty string means that both are the same.
	Differences []string
	// Events is the length of the first recording.
	Events int
}

// DifferentPath and DifferentAddress begin the texts of Result.Differences: the process
// executed another instruction, or the same one with another address.
const (
	DifferentPath    = "different path"
	DifferentAddress = "different address"
)

// Compare runs the function with every input and compares the recordings. It kills the
// process when ctx ends. The error is ErrNotPermitted, ErrExited with the output of the
// process, that of ctx, or says what the tracer did not understand.
func Compare(ctx context.Context, c Config) (r Result, err error) {
	output, err := os.CreateTemp("", "pathtrace")
	if err != nil {
		return r, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Only the thread that started the process can trace it. Without a call of
		// UnlockOSThread the thread ends with the goroutine.
		runtime.LockOSThread()
		r, err = c.compare(ctx, output)
	}()
	<-done
	if err != nil {
		text, _ := os.ReadFile(output.Name())
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return r, err
}

func (c Config) compare(ctx context.Context, output *os.File) (r Result, err error) {
	t, err := start(ctx, c, output)
	if err != nil {
		return r, err
	}
	defer t.close()
	var rec recording
	for _, input := range c.Inputs {
		n, err := t.record(&rec)
		if err != nil {
			return r, fmt.Errorf("%q: %w", input, err)
		}
		r.Instructions = append(r.Instructions, n)
		difference := ""
		if differs, pc, sameInstruction := rec.finish(); differs {
			difference = DifferentPath + " from " + t.location(pc) + " on"
			if sameInstruction && c.Detail == Instructions {
				difference = DifferentAddress + " in " + t.location(pc)
			}
		}
		r.Differences = append(r.Differences, difference)
	}
	r.Events = len(rec.events)
	return r, nil
}

// recording holds the events of the first execution and compares those of later ones
// with them as they happen.
type recording struct {
	events   []uint64
	complete bool // the first execution has ended
	n        int  // number of events of the current execution
	// The first event that differs, and whether its instruction is the same and only
	// the detail differs.
	differs         bool
	pc              uint64
	sameInstruction bool
}

// add records an event: the address of an instruction, and what it depends on.
func (r *recording) add(pc uint64, detail uint32) {
	event := uint64(detail)<<32 | uint64(uint32(pc))
	r.n++
	switch {
	case !r.complete:
		r.events = append(r.events, event)
	case !r.differs && (r.n > len(r.events) || r.events[r.n-1] != event):
		r.differs, r.pc = true, pc
		r.sameInstruction = r.n <= len(r.events) && uint32(r.events[r.n-1]) == uint32(pc)
	}
}

// finish ends an execution and returns how it differs from the first one.
func (r *recording) finish() (differs bool, pc uint64, sameInstruction bool) {
	// An execution with fewer events differs, too.
	differs, pc, sameInstruction = r.differs || r.n < len(r.events), r.pc, r.sameInstruction
	r.complete, r.n, r.differs, r.pc = true, 0, false, 0
	return differs, pc, sameInstruction
}
