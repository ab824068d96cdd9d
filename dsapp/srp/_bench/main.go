// Command _bench compares the server's side of SRP-6a in this repository with the
// same work done by OpenSSL and GMP (the programs in baseline), on this machine:
// `make bench-srp`.
//
// All programs compute one fixed exchange for each group and check the results
// before anything is measured. Then they take turns, on one core, for a number
// of rounds. What counts of a turn is the best of several short batches, and what
// counts of a program is its ratio to OpenSSL's turns right before and after.
package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/internal/figures"
)

//go:embed baseline
var baseline embed.FS

const (
	reference = "openssl"
	begin     = "<!-- bench-srp: written by `make bench-srp README=1` from here -->\n"
	end       = "<!-- bench-srp: to here -->\n"
)

// labels are the names of what is not called like its kernel.
var labels = map[string]string{
	"openssl":  "OpenSSL, `BN_mod_exp_mont_consttime`",
	"gmp":      "GMP, `mpz_powm_sec`",
	"portable": "`portable`: bigmod with a table for g",
	"bigmod":   "bigmod without the table",
}

// place is one cell of the table.
type place struct{ program, group string }

// steps are the nanoseconds that both steps take.
type steps [2]float64

// turn is what a program took in a round, and what the reference took around it.
type turn struct{ own, reference steps }

// bench is one comparison.
type bench struct {
	folder    string
	pin       []string // command that pins another to a core, if there is one
	batches   int
	batch     time.Duration
	libraries []string // the reference first
	versions  []string // of the libraries
	programs  []string // the libraries, then the kernels
	groups    []string
	present   map[place]bool
	rounds    []map[place]turn
	busy      float64 // load average without this comparison
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-srp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 15, "number of rounds")
	batches := flag.Int("batches", 6, "batches of each step in a round, the best of which counts")
	batch := flag.Duration("batch", 10*time.Millisecond, "least time of a batch")
	limit := flag.Duration("limit", 170*time.Second, "begin no round that would end later")
	readme := flag.String("readme", "", "also write the figures between the marks in this `file`")
	flag.Parse()
	if *rounds < 1 || *batches < 1 || *batch <= 0 || flag.NArg() > 0 {
		flag.Usage()
		return errors.New("rounds, batches and their time must be positive")
	}

	start, before := time.Now(), figures.Load()
	folder, err := os.MkdirTemp("", "bench-srp")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()

	b := &bench{folder: folder, batches: *batches, batch: *batch, present: map[place]bool{}}
	if err := b.build(ctx); err != nil {
		return err
	}
	b.choosePin(ctx)
	if err := b.discover(ctx); err != nil {
		return err
	}
	var longest time.Duration
	for n := range *rounds {
		if n > 0 && time.Since(start)+longest > *limit {
			fmt.Fprintf(os.Stderr, "bench-srp: stopped by the limit of %v\n", *limit)
			break
		}
		began := time.Now()
		if err := b.round(ctx); err != nil {
			return err
		}
		longest = max(longest, time.Since(began))
		fmt.Fprintf(os.Stderr, "\rround %d of %d", n+1, *rounds)
	}
	fmt.Fprintln(os.Stderr)

	// One of the load at the end is this comparison.
	b.busy = max(before, figures.Load()-1)
	fmt.Println(b.conditions())
	if b.busy >= 1 {
		fmt.Println("\nWARNING: measure again on a quiet machine.")
	}
	fmt.Printf("\nTimes as multiples of OpenSSL's: medians of %d rounds, and the middle half of them.\n\n%s", len(b.rounds), b.table())
	if *readme == "" {
		return nil
	}
	return figures.Rewrite(*readme, begin, end, b.summary())
}

// build makes the programs and the exchanges they compute. The exchanges come
// from a test that has every kernel compute them.
func (b *bench) build(ctx context.Context) error {
	if err := os.CopyFS(b.folder, baseline); err != nil {
		return err
	}
	// The name of a compiler may follow that of another program, or have options.
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	sources := filepath.Join(b.folder, "baseline")
	for _, c := range []struct {
		name string
		libs []string
	}{{"openssl", []string{"-lcrypto"}}, {"gmp", []string{"-lgmp", "-lcrypto"}}} {
		args := slices.Concat(cc[1:], []string{
			"-O2", "-std=c11", "-Wall", "-D_POSIX_C_SOURCE=200809L", "-DOPENSSL_API_COMPAT=0x10100000L",
			"-o", b.path(c.name), filepath.Join(sources, "baseline.c"), filepath.Join(sources, c.name+".c"),
		}, c.libs)
		if _, err := output(ctx, cc[0], args...); err != nil {
			return err
		}
		version, err := output(ctx, b.path(c.name))
		if err != nil {
			return err
		}
		b.versions = append(b.versions, strings.TrimSpace(string(version)))
		b.libraries = append(b.libraries, c.name)
	}

	// Without cgo, as the product is built.
	test := exec.CommandContext(ctx, "go", "test", "-c", "-o", b.path("srp.test"), "./dsapp/srp")
	test.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := outputOf(test); err != nil {
		return err
	}
	if err := os.Mkdir(b.path("exchanges"), 0o700); err != nil {
		return err
	}
	_, err := output(ctx, b.path("srp.test"), "-test.run=^TestMeasured$", "-exchanges="+b.path("exchanges"))
	return err
}

func (b *bench) path(name string) string { return filepath.Join(b.folder, name) }

// choosePin pins to the last core that this process may use, if that can be done.
func (b *bench) choosePin(ctx context.Context) {
	core := figures.Field("/proc/self/status", "Cpus_allowed_list")
	core = core[strings.LastIndexAny(core, ",-")+1:]
	if core == "" || exec.CommandContext(ctx, "taskset", "-c", core, "true").Run() != nil {
		return
	}
	b.pin = []string{"taskset", "-c", core}
}

// discover finds out what groups and kernels there are, and in what order.
func (b *bench) discover(ctx context.Context) error {
	text, err := output(ctx, b.path("srp.test"), "-test.run=^$", "-test.bench=^BenchmarkServerStep1$", "-test.benchtime=1x", "-test.cpu=1")
	if err != nil {
		return err
	}
	b.programs = slices.Clone(b.libraries)
	next := 0
	for _, r := range results(text) {
		group, kernel, ok := strings.Cut(r.name, "/")
		if !slices.Contains(b.groups, group) {
			b.groups = append(b.groups, group)
			next = len(b.libraries)
			for _, library := range b.libraries {
				b.present[place{library, group}] = true
			}
		}
		if !ok {
			// As it is served, by one of the others.
			continue
		}
		b.present[place{kernel, group}] = true
		// Kernels come from fast to slow. One that other groups lack keeps its place
		// behind the one before it.
		if i := slices.Index(b.programs, kernel); i >= 0 {
			next = i + 1
			continue
		}
		b.programs = slices.Insert(b.programs, next, kernel)
		next++
	}
	if len(b.groups) == 0 {
		return errors.New("no benchmarks found")
	}
	return nil
}

// round lets every program measure every group, in the other order every second
// time. The reference has its turn before and after every other program, since
// the speed of a machine that others use changes within seconds.
func (b *bench) round(ctx context.Context) error {
	order := slices.Clone(b.programs[1:])
	if len(b.rounds)%2 == 1 {
		slices.Reverse(order)
	}
	turns := map[place]turn{}
	for _, group := range b.groups {
		first, err := b.measure(ctx, place{reference, group})
		if err != nil {
			return err
		}
		before := first
		for _, program := range order {
			at := place{program, group}
			if !b.present[at] {
				continue
			}
			own, err := b.measure(ctx, at)
			if err != nil {
				return err
			}
			after, err := b.measure(ctx, place{reference, group})
			if err != nil {
				return err
			}
			turns[at] = turn{own, steps{(before[0] + after[0]) / 2, (before[1] + after[1]) / 2}}
			before = after
		}
		turns[place{reference, group}] = turn{first, first}
	}
	b.rounds = append(b.rounds, turns)
	return nil
}

// measure returns the best times of one turn of a program.
func (b *bench) measure(ctx context.Context, at place) (best steps, err error) {
	command := b.command(at)
	text, err := output(ctx, command[0], command[1:]...)
	if err != nil {
		return steps{}, err
	}
	for _, r := range results(text) {
		if r.name != at.group && r.name != at.group+"/"+at.program {
			continue
		}
		if best[r.step] == 0 || r.ns < best[r.step] {
			best[r.step] = r.ns
		}
	}
	if best[0] == 0 || best[1] == 0 {
		return steps{}, fmt.Errorf("no times of %s at %s in:\n%s", at.program, at.group, text)
	}
	return best, nil
}

// command returns what measures one program with one group.
func (b *bench) command(at place) []string {
	if slices.Contains(b.libraries, at.program) {
		return slices.Concat(b.pin, []string{
			b.path(at.program), filepath.Join(b.folder, "exchanges", at.group), at.group,
			strconv.Itoa(b.batches), fmt.Sprintf("%g", b.batch.Seconds()*1000),
		})
	}
	return slices.Concat(b.pin, []string{
		b.path("srp.test"), "-test.run=^$", "-test.bench=^BenchmarkServerStep[12]$/^" + at.group + "$/^" + at.program + "$",
		"-test.count=" + strconv.Itoa(b.batches), "-test.benchtime=" + b.batch.String(), "-test.cpu=1",
	})
}

// result is one line of a benchmark.
type result struct {
	step int
	name string
	ns   float64
}

// results reads the output of benchmarks.
func results(text []byte) (all []result) {
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "ns/op" {
			continue
		}
		ns, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			continue
		}
		for step, prefix := range []string{"BenchmarkServerStep1/", "BenchmarkServerStep2/"} {
			if name, ok := strings.CutPrefix(f[0], prefix); ok {
				all = append(all, result{step, name, ns})
			}
		}
	}
	return all
}

// over collects a number of every round.
func (b *bench) over(at place, f func(turn) float64) figures.Quartiles {
	var all []float64
	for _, turns := range b.rounds {
		all = append(all, f(turns[at]))
	}
	return figures.QuartilesOf(all)
}

// ratios returns the times of both steps and of their sum as ratios to the
// reference.
func (b *bench) ratios(at place) (step1, step2, both figures.Quartiles) {
	of := func(time func(steps) float64) figures.Quartiles {
		return b.over(at, func(t turn) float64 { return time(t.own) / time(t.reference) })
	}
	return of(func(s steps) float64 { return s[0] }), of(func(s steps) float64 { return s[1] }), of(sum)
}

// microseconds returns the time of both steps.
func (b *bench) microseconds(at place) figures.Quartiles {
	return b.over(at, func(t turn) float64 { return sum(t.own) / 1000 })
}

func sum(s steps) float64 { return s[0] + s[1] }

func label(program string) string {
	if l, ok := labels[program]; ok {
		return l
	}
	return "`" + program + "`"
}

// table returns all figures, in Markdown that can be read as it is.
func (b *bench) table() string {
	rows := [][]string{{"group", "arithmetic", "step 1", "step 2", "both", "µs of both"}}
	for _, group := range b.groups {
		for _, program := range b.programs {
			at := place{program, group}
			if !b.present[at] {
				continue
			}
			t := b.microseconds(at)
			row := []string{group, label(program), "1", "1", "1", fmt.Sprintf("%.0f (%.0f–%.0f)", t.Median, t.Low, t.High)}
			if program != reference {
				step1, step2, both := b.ratios(at)
				row[2], row[3], row[4] = step1.String(), step2.String(), both.String()
			}
			rows = append(rows, row)
		}
	}
	return figures.Markdown(rows, true)
}

// summary returns what goes into the README.
func (b *bench) summary() string {
	rows := [][]string{append([]string{"arithmetic"}, b.groups...)}
	for _, program := range b.programs {
		row := []string{label(program)}
		for _, group := range b.groups {
			at := place{program, group}
			if !b.present[at] {
				row = append(row, "–")
				continue
			}
			if program == reference {
				row = append(row, fmt.Sprintf("1 (%.0f µs)", b.microseconds(at).Median))
				continue
			}
			step1, step2, both := b.ratios(at)
			row = append(row, fmt.Sprintf("%s / %s / **%s** (%s)",
				figures.Ratio(step1.Median), figures.Ratio(step2.Median), figures.Ratio(both.Median), both.Spread()))
		}
		rows = append(rows, row)
	}
	return fmt.Sprintf("%s\nCells: step 1 / step 2 / **both**, as multiples of OpenSSL's time, medians of %d rounds; in brackets the middle half of the\n"+
		"rounds, for both.\n\n%s", b.conditions(), len(b.rounds), figures.Markdown(rows, false))
}

// conditions tells what the figures were measured on.
func (b *bench) conditions() string {
	cpu := figures.Processor()
	flags := strings.Fields(figures.Field("/proc/cpuinfo", "flags"))
	flags = slices.DeleteFunc([]string{"avx512ifma", "adx", "bmi2"}, func(f string) bool { return !slices.Contains(flags, f) })
	if len(flags) > 0 {
		cpu += " with " + strings.Join(flags, ", ")
	}
	pinned := "not pinned to a core"
	if b.pin != nil {
		pinned = "on one core"
	}
	if b.busy >= 1 {
		pinned += fmt.Sprintf(", while other work was running (load average %.1f)", b.busy)
	}
	return fmt.Sprintf("%s; %s, %s; %s.", cpu, strings.Join(b.versions, ", "), runtime.Version(), pinned)
}

// output runs a command and returns what it prints. What it complains about goes
// to standard error.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	return outputOf(exec.CommandContext(ctx, name, args...))
}

func outputOf(c *exec.Cmd) ([]byte, error) {
	c.Stderr = os.Stderr
	text, err := c.Output()
	if err != nil {
		_, _ = io.Copy(os.Stderr, bytes.NewReader(text))
		return nil, fmt.Errorf("%s: %w", strings.Join(c.Args, " "), err)
	}
	return text, nil
}
