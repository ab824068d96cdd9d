package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// childPath is an environment variable. If it is set, the test binary calls writeUntilKilled
// with its value.
const childPath = "DSAPP_EMBEDDED_CRASH_TEST"

// writeUntilKilled registers one identifier after the other. For each it makes a failed and a
// successful exchange, claims a login and a signature, and releases the signature. Meanwhile it
// archives claims. It prints a line after every call.
func writeUntilKilled(path string) {
	s, err := embedded.Open(path, embedded.Options{}.WithoutSweeps())
	if err != nil {
		panic(err)
	}
	// The kill comes at any time of this, too.
	go func() {
		for {
			if err := s.Archive(); err != nil {
				panic(err)
			}
		}
	}()
	ctx := context.Background()
	for i := 0; ; i++ {
		r := record(fmt.Sprintf("id-%d", i), byte(i))
		if _, created, err := s.Create(ctx, r, activation.Generation{}); err != nil || !created {
			panic(err)
		}
		fmt.Println("created", i)
		for _, proven := range []bool{false, true} {
			h := activation.Handshake{Generation: r.Generation, State: []byte("state"), Lifetime: time.Minute}
			if _, err := s.PutHandshake(ctx, r.Identifier, h); err != nil {
				panic(err)
			}
			token := activation.Token{1}
			if proven {
				token = activation.Token{2}
			}
			if _, ok, err := s.Take(ctx, r.Identifier, token, activation.Tag{}, 3); err != nil || !ok {
				panic(err)
			}
			fmt.Println("taken", i)
			x := activation.Settlement{Generation: r.Generation, Token: token, Proven: proven, MaxAttempts: 3, MaxActivations: 3}
			if _, ok, err := s.Settle(ctx, r.Identifier, x); err != nil || ok != proven {
				panic(err)
			}
			fmt.Println("settled", i)
		}
		for _, kind := range []ownership.Kind{ownership.Login, ownership.Signature} {
			if won, err := s.Claim(ctx, kind, claim(fmt.Sprint(i), byte(i)), "device-1", time.Hour); err != nil || !won {
				panic(err)
			}
			fmt.Println("claimed", i)
		}
		if err := s.Release(ctx, ownership.Signature, fmt.Sprint(i), ownership.Token{byte(i)}, "device-1"); err != nil {
			panic(err)
		}
		fmt.Println("released", i)
	}
}

// What a call has confirmed survives kill -9: records, reserved attempts, activations, claims and
// releases.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, stop := range []int{1, 2, 3, 4, 5, 6, 7, 8, 20, 61} {
		t.Run(fmt.Sprintf("after %d calls", stop), func(t *testing.T) {
			t.Parallel()
			path := temporary(t)
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), childPath+"="+path)
			child.Stderr = os.Stderr
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			// calls has the number of confirmed calls by identifier.
			calls := map[int]int{}
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); n++ {
				var what string
				var i int
				if _, err := fmt.Sscan(lines.Text(), &what, &i); err != nil {
					t.Fatalf("child said %q", lines.Text())
				}
				calls[i]++
				if n+1 == stop {
					// Lines that were written before the process ended count as well.
					if err := child.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			_ = child.Wait()
			if len(calls) == 0 {
				t.Fatal("the child wrote nothing")
			}

			s := open(t, path, embedded.Options{})
			for i, n := range calls {
				r := record(fmt.Sprintf("id-%d", i), byte(i))
				got, found, err := s.Load(t.Context(), r.Identifier)
				if err != nil || !found || got.Generation != r.Generation || string(got.Verifier) != "verifier" {
					t.Fatalf("%s: found %v, error %v", r.Identifier, found, err)
				}
				// The calls are: create, take, settle as failed, take, settle as proven,
				// claim a login, claim a signature, release it. The call after the last
				// confirmed one may have been carried out as well.
				if n >= 5 {
					if _, ok, err := s.AdmitDevice(t.Context(), r.Identifier, 3); err != nil || !ok {
						t.Errorf("%s: the activation is lost: %v, error %v", r.Identifier, ok, err)
					}
				}
				reserved := []int{0, 0, 1, 1, 1, 1, 1, 1, 1}[n]
				if got, found, err := s.Owner(t.Context(), ownership.Login, fmt.Sprint(i)); err != nil || n >= 6 && (!found || got.Token != ownership.Token{byte(i)}) {
					t.Errorf("%s: the claim is lost: %v, error %v", r.Identifier, found, err)
				}
				if _, found, err := s.Owner(t.Context(), ownership.Signature, fmt.Sprint(i)); err != nil || found && n == 8 {
					t.Errorf("%s: the release is lost, error %v", r.Identifier, err)
				}
				left := 0
				for token := byte(10); ; token++ {
					h := activation.Handshake{Generation: r.Generation, Lifetime: time.Minute}
					if _, err := s.PutHandshake(t.Context(), r.Identifier, h); err != nil {
						t.Fatal(err)
					}
					_, ok, err := s.Take(t.Context(), r.Identifier, activation.Token{token}, activation.Tag{}, 3)
					if err != nil {
						t.Fatal(err)
					}
					if !ok {
						break
					}
					left++
				}
				if left > 3-reserved {
					t.Errorf("%s: %d attempts left, although %d calls were confirmed", r.Identifier, left, n)
				}
			}
		})
	}
}

// A proof that is in flight when the process is killed keeps its attempt, so that crashes of the
// gateway give nobody more guesses.
func TestKillInFlight(t *testing.T) {
	t.Parallel()
	const maxAttempts = 3
	path := temporary(t)
	r := record("id-1", 1)
	for n := range maxAttempts + 1 {
		s := open(t, path, embedded.Options{})
		if n == 0 {
			if _, created, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !created {
				t.Fatal(created, err)
			}
		}
		h := activation.Handshake{Generation: r.Generation, Lifetime: time.Minute}
		if _, err := s.PutHandshake(t.Context(), r.Identifier, h); err != nil {
			t.Fatal(err)
		}
		_, ok, err := s.Take(t.Context(), r.Identifier, activation.Token{byte(n)}, activation.Tag{}, maxAttempts)
		if err != nil || ok != (n < maxAttempts) {
			t.Fatalf("attempt %d after as many kills: %v, error %v", n+1, ok, err)
		}
		// This copy is the file that a killed process would leave.
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		path = temporary(t)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
