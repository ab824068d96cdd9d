package testbed

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// The suites that put a gateway under load and trouble are the tests TestSoak…
// They run in a short form unless this says where their table goes.
var soak = flag.String("soak", "", "run the soak suites at full length and write their table to this `file`")

// length chooses between the short and the long form of a suite.
func Length(short, long int) int {
	if !Soaking() {
		return short
	}
	return long
}

const (
	// Connections that happen to be idle at the end and were not at the start.
	// Each has two goroutines and one descriptor.
	moreGoroutines  = 16
	moreDescriptors = 8

	maxProblems = 10 // that a ledger describes
)

// ledger is what became of the requests of one suite: a row of the table. Each
// request that was sent ends as exactly one of answered, refused, lost and wrong.
type Ledger struct {
	name    string
	started time.Time

	sent     atomic.Int64
	answered atomic.Int64 // as it must be
	refused  atomic.Int64 // by a rule that is documented for this moment
	lost     atomic.Int64 // without an answer
	wrong    atomic.Int64 // answered, but not as it must be

	devices atomic.Int64 // that the load activated to keep them

	mu       sync.Mutex
	problems []string
	loads    []*Load
	watched  []*watched

	closing  sync.Once
	duration time.Duration
}

// newLedger begins a row. The test fails if at its end a request is lost, wrong or
// without an outcome.
func NewLedger(t *testing.T, name string) *Ledger {
	t.Helper()
	l := &Ledger{name: name, started: time.Now()}
	t.Cleanup(func() {
		l.Close(t)
		for _, problem := range l.verdict() {
			t.Error(problem)
		}
		record(t, l.row(t.Failed()))
	})
	return l
}

// Sent tells that a request is about to be sent.
func (l *Ledger) Sent() { l.sent.Add(1) }

// Answered tells that an answer was what it has to be.
func (l *Ledger) Answered() { l.answered.Add(1) }

// Refused tells that a request was refused by a documented rule.
func (l *Ledger) Refused() { l.refused.Add(1) }

// Lost tells that a request was not answered.
func (l *Ledger) Lost(format string, arguments ...any) {
	l.lost.Add(1)
	l.problem("lost: "+format, arguments...)
}

// Wrong tells that an answer was not what it has to be.
func (l *Ledger) Wrong(format string, arguments ...any) {
	l.wrong.Add(1)
	l.problem("wrong: "+format, arguments...)
}

// Broken tells of a violation that no single request shows.
func (l *Ledger) Broken(format string, arguments ...any) {
	l.problem("broken: "+format, arguments...)
}

func (l *Ledger) problem(format string, arguments ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < maxProblems {
		l.problems = append(l.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, arguments...))
	}
}

// verdict gives what speaks against the suite.
func (l *Ledger) verdict() []string {
	l.mu.Lock()
	problems := append([]string(nil), l.problems...)
	l.mu.Unlock()
	sent, answered, lost, wrong := l.sent.Load(), l.answered.Load(), l.lost.Load(), l.wrong.Load()
	if lost > 0 || wrong > 0 {
		problems = append(problems, fmt.Sprintf("%s: of %d requests %d were lost and %d answered wrongly", l.name, sent, lost, wrong))
	}
	if known := l.Outcomes(); known != sent {
		problems = append(problems, fmt.Sprintf("%s: %d requests were sent and %d have an outcome", l.name, sent, known))
	}
	if sent > 0 && answered == 0 {
		problems = append(problems, l.name+": nothing was answered")
	}
	return problems
}

// watched is a process and what it used at first and at last.
type watched struct {
	*Gateway
	start, end Usage
}

// Watch takes what the gateways use now, which is to be when they rest after a
// warm-up, and again at the end of the test, or when Close is called: a suite that
// starts processes anew has to call it while the last ones run. Goroutines and
// descriptors must then be no more than before, apart from a few connections that
// happen to be idle.
func (l *Ledger) Watch(t *testing.T, gateways ...*Gateway) {
	t.Helper()
	for _, g := range gateways {
		w := &watched{Gateway: g, start: g.restingUsage(t)}
		l.mu.Lock()
		l.watched = append(l.watched, w)
		l.mu.Unlock()
	}
	t.Cleanup(func() { l.Close(t) })
}

// Close stops the loads and takes what the watched gateways use at the end.
func (l *Ledger) Close(t *testing.T) {
	t.Helper()
	l.closing.Do(func() {
		l.mu.Lock()
		loads, all := l.loads, l.watched
		l.mu.Unlock()
		for _, load := range loads {
			load.Stop()
		}
		l.duration = time.Since(l.started)
		for _, w := range all {
			if err := w.settle(); err != nil {
				l.Broken("%s at the end: %v", w.Admin, err)
			}
		}
	})
}

// settle waits until the process uses as much as at the start.
func (w *watched) settle() error {
	timeout := time.After(poll.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var err error
		if w.end, err = w.Usage(); err == nil {
			err = flat(w.start, w.end)
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-timeout:
			return err
		}
	}
}

// flat tells by what a process has grown.
func flat(start, end Usage) error {
	var errs []error
	if end.Goroutines > start.Goroutines+moreGoroutines {
		errs = append(errs, fmt.Errorf("%d goroutines, were %d", end.Goroutines, start.Goroutines))
	}
	if end.Descriptors > start.Descriptors+moreDescriptors {
		errs = append(errs, fmt.Errorf("%d descriptors, were %d", end.Descriptors, start.Descriptors))
	}
	return errors.Join(errs...)
}

// A row is one suite of the table.
type row struct {
	name                                 string
	duration                             time.Duration
	sent, answered, refused, lost, wrong int64
	peak                                 int // KiB, the most of one process
	goroutines, descriptors              string
	failed                               bool
}

func (l *Ledger) row(failed bool) row {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := row{
		name: l.name, duration: l.duration, failed: failed,
		sent: l.sent.Load(), answered: l.answered.Load(), refused: l.refused.Load(), lost: l.lost.Load(), wrong: l.wrong.Load(),
	}
	var goroutines, descriptors []string
	for _, w := range l.watched {
		r.peak = max(r.peak, w.end.Peak)
		goroutines = append(goroutines, fmt.Sprintf("%d→%d", w.start.Goroutines, w.end.Goroutines))
		descriptors = append(descriptors, fmt.Sprintf("%d→%d", w.start.Descriptors, w.end.Descriptors))
	}
	r.goroutines, r.descriptors = strings.Join(goroutines, " "), strings.Join(descriptors, " ")
	return r
}

// table lays rows out.
func table(rows []row) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tduration\tsent\tanswered\trefused by rule\tlost\twrong\tpeak memory (MiB)\tgoroutines\tdescriptors\t")
	for _, r := range rows {
		outcome := ""
		if r.failed {
			outcome = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", r.name, r.duration.Round(100*time.Millisecond),
			r.sent, r.answered, r.refused, r.lost, r.wrong, (r.peak+1023)/1024, r.goroutines, r.descriptors, outcome)
	}
	_ = w.Flush()
	return b.String()
}

// recorded are the rows of the suites that have ended.
var recorded struct {
	mu   sync.Mutex
	rows []row
}

// record adds a row to the table. It is written anew each time, so that it is
// there however the test process ends.
func record(t *testing.T, r row) {
	t.Helper()
	t.Logf("\n%s", table([]row{r}))
	if !Soaking() {
		return
	}
	recorded.mu.Lock()
	defer recorded.mu.Unlock()
	recorded.rows = append(recorded.rows, r)
	assert.NoError(t, os.WriteFile(*soak, []byte(table(recorded.rows)), 0o600))
}

// soaking reports whether the suites run at full length.
func Soaking() bool { return *soak != "" }

// Outcomes is how many requests have an outcome.
func (l *Ledger) Outcomes() int64 {
	return l.answered.Load() + l.refused.Load() + l.lost.Load() + l.wrong.Load()
}
