//go:build linux && amd64

package pathtrace

import (
	"os"
	"runtime"
	"strings"
)

// Environment variables that name the function and its inputs to the traced process.
const (
	functionVariable = "PATHTRACE_FUNCTION"
	inputsVariable   = "PATHTRACE_INPUTS"
)

// Function is a function to be traced. Set prepares an input, always in the same memory;
// Call uses it and is traced.
type Function struct {
	Set  func(input string)
	Call func()
}

// Serve runs the function that Compare asks for and returns true. In a process that is
// not traced it returns false and does nothing. The test that Config names must call it
// and must not be parallel.
func Serve(lookup func(name string) Function) bool {
	name := os.Getenv(functionVariable)
	if name == "" {
		return false
	}
	f := lookup(name)
	runtime.Breakpoint() // The tracer stops all other threads here.
	for input := range strings.SplitSeq(os.Getenv(inputsVariable), ",") {
		f.Set(input)
		f.Call() // What happens once in a process happens now.
		runtime.Breakpoint()
		f.Call()
		runtime.Breakpoint()
	}
	return true
}
