//go:build linux && amd64 && !race

package pathtrace

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// allocated makes the compiler allocate memory on the heap.
var allocated []byte

// functions are the functions that the tests trace. The secret is set to the input.
func functions() map[string]func(secret int) {
	var sum int
	var table [256]int
	prime, _ := new(big.Int).SetString("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF61", 16)
	calls := 0
	return map[string]func(int){
		"constant": func(secret int) {
			for i := range 64 {
				sum = sum*sum + secret>>i
			}
		},
		"counts": func(secret int) {
			for i := range secret {
				sum += i * sum
			}
		},
		"branches": func(secret int) {
			for i := range 64 {
				if secret>>i&1 != 0 {
					sum = sum*3 + i
				}
			}
		},
		"looks up":  func(secret int) { sum += table[secret%len(table)] },
		"allocates": func(secret int) { allocated = make([]byte, 1+secret) },
		"math/big":  func(secret int) { new(big.Int).Exp(big.NewInt(3), big.NewInt(int64(secret)), prime) },
		"panics": func(secret int) {
			if secret != 0 {
				panic("for this secret")
			}
		},
		"exits": func(int) { os.Exit(3) },
		"hangs": func(secret int) {
			for secret != 0 {
				sum++
			}
		},
		"hangs when traced": func(int) {
			for calls++; calls > 1; {
				sum++
			}
		},
	}
}

// TestTarget runs the function in the process that is traced.
func TestTarget(t *testing.T) {
	var secret int
	Serve(func(name string) Function {
		f := functions()[name]
		return Function{
			Set: func(input string) {
				if _, err := fmt.Sscan(input, &secret); err != nil {
					t.Fatal(err)
				}
			},
			Call: func() { f(secret) },
		}
	})
}

// compare traces a function of TestTarget. It returns no result where nothing can be traced.
func compare(t *testing.T, detail Detail, function string, inputs ...string) (r Result, ok bool) {
	t.Helper()
	r, err := Compare(t.Context(), Config{Test: "TestTarget", Function: function, Inputs: inputs, Detail: detail})
	if errors.Is(err, ErrNotPermitted) {
		t.Logf("NOT CHECKED: %v", err)
		return r, false
	}
	if err != nil {
		t.Fatalf("%s: %v", function, err)
	}
	return r, true
}

// Compare finds dependencies on the input, and none where there are none. An address is
// not part of a path.
func TestDifferences(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		function, withBranches, withInstructions string
	}{
		{function: "constant"},
		{function: "counts", withBranches: DifferentPath, withInstructions: DifferentPath},
		{function: "branches", withBranches: DifferentPath, withInstructions: DifferentPath},
		{function: "looks up", withInstructions: DifferentAddress},
		{function: "allocates", withBranches: DifferentPath},
		{function: "math/big", withBranches: DifferentPath},
	} {
		t.Run(test.function, func(t *testing.T) {
			t.Parallel()
			for detail, want := range []string{test.withBranches, test.withInstructions} {
				if want == "" && test.withBranches != "" {
					continue // More detail would show nothing new.
				}
				r, ok := compare(t, Detail(detail), test.function, "0", "123")
				if !ok {
					return
				}
				if got := r.Differences; got[0] != "" || (got[1] == "") != (want == "") || !strings.HasPrefix(got[1], want) {
					t.Errorf("detail %d: %q, want %q", detail, got, want)
				}
			}
		})
	}
}

// The number of instructions is right, and the same with both details.
func TestInstructionCount(t *testing.T) {
	t.Parallel()
	inputs := []string{"0", "100", "200", "300"}
	branches, ok := compare(t, Branches, "counts", inputs...)
	if !ok {
		return
	}
	all, _ := compare(t, Instructions, "counts", inputs...)
	n := branches.Instructions
	turn := (n[1] - n[0]) / 100
	if !slices.Equal(n, all.Instructions) || turn < 3 || turn > 10 || n[1]-n[0] != 100*turn || n[2]-n[1] != 100*turn || n[3]-n[2] != 100*turn {
		t.Errorf("loops of 0, 100, 200 and 300 turns have %d instructions by branches and %d one by one", n, all.Instructions)
	}
}

// Compare returns when the process ends before its last input, or never would.
func TestIncompleteTraces(t *testing.T) {
	t.Parallel()
	for function, want := range map[string]error{
		"panics": ErrExited, "exits": ErrExited, "hangs": context.DeadlineExceeded, "hangs when traced": context.DeadlineExceeded,
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if errors.Is(want, context.DeadlineExceeded) {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			_, err := Compare(ctx, Config{Test: "TestTarget", Function: function, Inputs: []string{"0", "1"}})
			if errors.Is(err, ErrNotPermitted) {
				t.Logf("NOT CHECKED: %v", err)
				return
			}
			if !errors.Is(err, want) || function == "panics" && !strings.Contains(err.Error(), "panic: for this secret") {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}
