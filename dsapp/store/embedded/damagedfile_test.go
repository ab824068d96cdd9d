package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// These tests damage copies of a real file and use them in a child process, which must not
// crash, whatever the file contains. They use only the exported methods of a Store, and know of
// the file only that it has pages.

const (
	// childTrials is an environment variable. If it is set, the test binary calls
	// serveTrials.
	childTrials = "DSAPP_EMBEDDED_TRIALS"
	pageSize    = 4096
	// members is the number of registrations, claims and simulated registrations in the
	// real file.
	members = 150
)

// trial is a test of a file in the child process.
type trial struct {
	// damage is what the child does after it has opened the file: nothing ("before", the
	// file was damaged before), truncate it ("cut"), overwrite a page with zeros ("zero"),
	// or truncate it while other goroutines use the store ("race").
	damage string
	offset int
	path   string
}

// outcome is the outcome of a trial: "refused" if Open returned an error, "works" if all calls
// succeeded, "fails" if calls failed with activation.ErrUnavailable, or else a description of
// what is wrong.
type outcome string

// serveTrials makes the trials that it reads, one per line, and writes their outcomes.
func serveTrials(in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 3)
		offset, err := strconv.Atoi(fields[1])
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "%s\n", trial{fields[0], offset, fields[2]}.make())
	}
}

func (x trial) make() outcome {
	before, err := os.ReadFile(x.path)
	if err != nil {
		return outcome(err.Error())
	}
	s, err := embedded.Open(x.path, embedded.Options{})
	if err != nil {
		return x.refused(before, err)
	}
	result := x.use(s)
	if err := s.Close(); err != nil {
		return outcome("closing: " + err.Error())
	}
	// The file may be refused now, but it must not be locked.
	s, err = embedded.Open(x.path, embedded.Options{})
	switch {
	case err == nil:
		err = s.Close()
	case strings.Contains(err.Error(), "another process"):
	default:
		err = nil
	}
	if err != nil {
		return outcome("opening again: " + err.Error())
	}
	return result
}

// refused checks that a file that Open refused is unchanged and not locked, and that the error
// says what to do.
func (x trial) refused(before []byte, err error) outcome {
	if _, ok := errors.AsType[*embedded.FileError](err); !ok || !strings.Contains(err.Error(), x.path) ||
		!strings.Contains(err.Error(), "move the file aside: what it holds lives ten minutes") {
		return outcome("refused with: " + err.Error())
	}
	if _, again := embedded.Open(x.path, embedded.Options{}); again == nil || again.Error() != err.Error() {
		return outcome(fmt.Sprintf("refused with: %v, then: %v", err, again))
	}
	after, err := os.ReadFile(x.path)
	if err != nil || !bytes.Equal(after, before) {
		return "the refused file was changed"
	}
	return "refused"
}

// use damages the file as the trial says and calls all methods.
func (x trial) use(s *embedded.Store) outcome {
	var err error
	switch x.damage {
	case "cut":
		err = os.Truncate(x.path, int64(x.offset))
	case "zero":
		err = overwrite(x.path, x.offset, make([]byte, pageSize))
	case "race":
		others, cut := make([]outcome, 4), make(chan struct{})
		var wg sync.WaitGroup
		for i := range others {
			wg.Go(func() {
				for done := false; !done && others[i] != "fails" && len(others[i]) < 8; {
					select {
					case <-cut:
						done = true
					default:
					}
					others[i] = calls(s)
				}
			})
		}
		err = os.Truncate(x.path, int64(x.offset))
		close(cut)
		wg.Wait()
		for _, o := range others {
			if o != "works" && o != "fails" {
				return o
			}
		}
	}
	if err != nil {
		return outcome(err.Error())
	}
	return calls(s)
}

// calls calls all methods and returns the outcome.
func calls(s *embedded.Store) outcome {
	ctx := context.Background()
	result := outcome("works")
	check := func(what string, found bool, err error) {
		switch {
		case err == nil && !found:
			result = outcome(what + ": lost")
		case err != nil && !errors.Is(err, activation.ErrUnavailable):
			result = outcome(what + ": " + err.Error())
		case err != nil && result == "works":
			result = "fails"
		}
	}
	for i := range members {
		r := member(i)
		_, found, err := s.Load(ctx, r.Identifier)
		check("load", found, err)
		_, found, err = s.Owner(ctx, ownership.Login, r.Identifier)
		check("owner", found, err)
	}
	pending, err := s.Pending(ctx, ownership.Login, "device-1")
	check("pending", len(pending) > 0, err)
	_, err = s.SimulationSecret(ctx, []byte("secret"))
	check("secret", true, err)
	r := record("new", 200)
	_, _, err = s.Create(ctx, r, activation.Generation{})
	check("create", true, err)
	_, err = s.PutHandshake(ctx, "new", activation.Handshake{Generation: r.Generation, Lifetime: time.Minute})
	check("put handshake", true, err)
	_, _, err = s.Take(ctx, "new", activation.Token{1}, activation.Tag{}, 3)
	check("take", true, err)
	check("remove", true, s.Remove(ctx, "new", r.Generation))
	_, err = s.Claim(ctx, ownership.Signature, claim("new", 200), "device-2", time.Hour)
	check("claim", true, err)
	check("release", true, s.Release(ctx, ownership.Signature, "new", ownership.Token{200}, "device-2"))
	return result
}

func member(i int) activation.Record {
	r := record(fmt.Sprintf("registration-with-a-long-name-%d", i), byte(i))
	r.Data = bytes.Repeat([]byte("data"), 100)
	return r
}

func overwrite(path string, offset int, with []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(with, int64(offset))
	return errors.Join(err, f.Close())
}

// realFile returns the content of a file whose buckets have several pages each.
func realFile(t testing.TB) []byte {
	t.Helper()
	path := temporary(t)
	s, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range members {
		wg.Go(func() {
			r := member(i)
			_, created, err := s.Create(t.Context(), r, activation.Generation{})
			if err != nil || !created {
				t.Errorf("create: %v, error %v", created, err)
			}
			won, err := s.Claim(t.Context(), ownership.Login, claim(r.Identifier, byte(i)), fmt.Sprintf("device-%d", i%20), time.Hour)
			if err != nil || !won {
				t.Errorf("claim: %v, error %v", won, err)
			}
			unknown := "simulated-" + r.Identifier
			h := activation.Handshake{Simulated: true, RecordLifetime: time.Hour, Lifetime: time.Hour}
			if _, err := s.PutHandshake(t.Context(), unknown, h); err != nil {
				t.Error(err)
			}
			if _, ok, err := s.Take(t.Context(), unknown, activation.Token{}, activation.Tag{}, 3); err != nil || !ok {
				t.Errorf("take: %v, error %v", ok, err)
			}
		})
	}
	wg.Wait()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	// Without one of its meta pages the file is as before the last transaction, which
	// therefore must not matter.
	for range 2 {
		if _, _, err := s.Settle(t.Context(), "nobody", activation.Settlement{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// child is a process that runs serveTrials.
type child struct {
	*exec.Cmd

	in    io.WriteCloser
	lines *bufio.Scanner
	err   bytes.Buffer
}

func startChild(t *testing.T) *child {
	t.Helper()
	c := &child{Cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.Env = append(os.Environ(), childTrials+"=1")
	c.Stderr = &c.err
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.in, c.lines = in, bufio.NewScanner(out)
	return c
}

// try makes a trial on a copy of content.
func (c *child) try(t *testing.T, path string, content []byte, damage string, offset int) outcome {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c.in, "%s %d %s\n", damage, offset, path)
	if !c.lines.Scan() {
		_ = c.Wait()
		t.Fatalf("%s at %d: the process ended: %.2000s", damage, offset, &c.err)
	}
	return outcome(c.lines.Text())
}

// end ends the child and checks that it did not crash.
func (c *child) end(t *testing.T) {
	t.Helper()
	if err := errors.Join(c.in.Close(), c.Wait()); err != nil {
		t.Errorf("child: %v\n%s", err, &c.err)
	}
}

// If any page of a file is damaged, or the file is truncated anywhere, Open refuses the file,
// does not change it and releases its lock. Otherwise the damaged page was not in use, and all
// calls work.
func TestDamagedPages(t *testing.T) {
	t.Parallel()
	content := realFile(t)
	pages := len(content) / pageSize
	if pages < 60 {
		t.Fatalf("the file has %d pages", pages)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for name, replace := range map[string]func(page int) []byte{
		"zeroed":      func(int) []byte { return make([]byte, pageSize) },
		"ones":        func(int) []byte { return bytes.Repeat([]byte{0xFF}, pageSize) },
		"a neighbour": func(page int) []byte { other := (page + 1) % pages; return content[other*pageSize:][:pageSize] },
		"random": func(int) []byte {
			b := make([]byte, pageSize)
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			return b
		},
		// The header of the page is unchanged.
		"zeroed behind its head": func(page int) []byte {
			b := make([]byte, pageSize)
			copy(b, content[page*pageSize:][:16])
			return b
		},
		"cut":            nil,
		"cut in a page":  nil,
		"cut and zeroed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dsapp.db")
			c := startChild(t)
			defer c.end(t)
			refused := 0
			for page := range pages {
				copied := bytes.Clone(content)
				switch {
				case replace != nil:
					copy(copied[page*pageSize:], replace(page))
				case name == "cut":
					copied = copied[:page*pageSize]
				case name == "cut in a page":
					copied = copied[:page*pageSize+1+page*13%(pageSize-1)]
				default:
					// A file system can lose the latest writes like this.
					clear(copied[page*pageSize:])
				}
				switch result := c.try(t, path, copied, "before", page*pageSize); {
				case result == "refused":
					refused++
				// An empty file is the same as a new one.
				case result == "works", len(copied) == 0:
				default:
					t.Errorf("page %d of %d: %s", page, pages, result)
				}
			}
			if refused < 20 {
				t.Errorf("only %d of %d files were refused", refused, pages)
			}
		})
	}
}

// If a file is truncated or overwritten while it is open and mapped, also during calls, calls fail
// with activation.ErrUnavailable and the process does not crash. After Close, the file is not
// locked.
func TestDamagedWhileOpen(t *testing.T) {
	t.Parallel()
	content := realFile(t)
	for _, damage := range []string{"cut", "zero", "race"} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dsapp.db")
			c := startChild(t)
			defer c.end(t)
			failed := 0
			for offset := 0; offset < len(content); offset += 5 * pageSize {
				at := offset
				if damage == "race" {
					// bbolt holds locks while it reads the first two pages.
					at = max(at, 2*pageSize)
				}
				switch result := c.try(t, path, content, damage, at); result {
				case "fails":
					failed++
				case "works":
				default:
					t.Errorf("at %d: %s", at, result)
				}
			}
			if failed < 5 {
				t.Errorf("only %d files failed", failed)
			}
		})
	}
}
