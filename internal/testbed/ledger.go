//go:build linux

package testbed

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/http"
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

// The soak suites are the tests TestSoak…, which put a gateway under load and trouble.
var soak = flag.String("soak", "", "run the soak suites at full length and write their table to this `file`")

// Length returns the short or the long form of a number of a soak suite.
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

	// lateAfter is the shortest timeout inside of the gateway that no configuration changes:
	// that of store calls that go on when a client has left.
	lateAfter = 3 * time.Second
	// maxLate is the share of requests that may be late, one in so many.
	maxLate = 10
)

// Late reports whether an answer says that the machine was too slow: that it got no answer of
// the store or of an authentication server in time, if it did wait for that. What became of
// the request is not known then.
func Late(status int, took time.Duration) bool {
	return (status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout) && took >= lateAfter
}

// Ledger counts what became of the requests of one suite, which is a row of the table. Each
// request that was sent ends as exactly one of answered, refused, late, lost and wrong.
type Ledger struct {
	name    string
	started time.Time

	sent     atomic.Int64
	answered atomic.Int64 // as it must be
	refused  atomic.Int64 // by a rule that is documented for this moment
	late     atomic.Int64 // without a known outcome, since the machine was too slow
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

// NewLedger begins a row. The test fails if at its end a request was lost, answered wrongly,
// or is without an outcome, or if many were late.
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

// Sent counts a request that is about to be sent.
func (l *Ledger) Sent() { l.sent.Add(1) }

// Answered counts an answer that is as it must be.
func (l *Ledger) Answered() { l.answered.Add(1) }

// Refused counts a refusal by a documented rule.
func (l *Ledger) Refused() { l.refused.Add(1) }

// Late counts a request of which Late says that the machine was too slow for it.
func (l *Ledger) Late() { l.late.Add(1) }

// Lost counts a request that was not answered.
func (l *Ledger) Lost(format string, arguments ...any) {
	l.lost.Add(1)
	l.problem("lost: "+format, arguments...)
}

// Wrong counts an answer that is not as it must be.
func (l *Ledger) Wrong(format string, arguments ...any) {
	l.wrong.Add(1)
	l.problem("wrong: "+format, arguments...)
}

// Broken notes a violation that no single request shows.
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

// verdict returns the reasons for which the suite has failed.
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
	if late := l.late.Load(); late > sent/maxLate {
		problems = append(problems, fmt.Sprintf("%s: of %d requests %d were late: too many for a machine that is only slow", l.name, sent, late))
	}
	if sent > 0 && answered == 0 {
		problems = append(problems, l.name+": nothing was answered")
	}
	return problems
}

// watched is a process and what it used at the start and at the end.
type watched struct {
	*Gateway
	start, end Usage
}

// Watch measures what the gateways use now, which is to be after a warm-up, and again in Close
// or at the end of the test. There must not be more goroutines and descriptors then, apart
// from those of a few connections that happen to be idle.
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

// Close stops the loads and measures what the watched gateways use. It has to be called while
// they run.
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

// settle waits until the process uses no more than at the start.
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

// flat returns an error if a process has grown.
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

// row is a row of the table.
type row struct {
	name                                       string
	duration                                   time.Duration
	sent, answered, refused, late, lost, wrong int64
	peak                                       int // KiB, the most of one process
	goroutines, descriptors                    string
	failed                                     bool
}

func (l *Ledger) row(failed bool) row {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := row{
		name: l.name, duration: l.duration, failed: failed,
		sent: l.sent.Load(), answered: l.answered.Load(), refused: l.refused.Load(), late: l.late.Load(), lost: l.lost.Load(), wrong: l.wrong.Load(),
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

// table returns rows as text in columns.
func table(rows []row) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tduration\tsent\tanswered\trefused by rule\tlate\tlost\twrong\tpeak memory (MiB)\tgoroutines\tdescriptors\t")
	for _, r := range rows {
		outcome := ""
		if r.failed {
			outcome = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", r.name, r.duration.Round(100*time.Millisecond),
			r.sent, r.answered, r.refused, r.late, r.lost, r.wrong, (r.peak+1023)/1024, r.goroutines, r.descriptors, outcome)
	}
	_ = w.Flush()
	return b.String()
}

// recorded has the rows of the suites that have ended.
var recorded struct {
	mu   sync.Mutex
	rows []row
}

// record adds a row to the table and writes the table, so that it is there however the
// process ends.
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

// Soaking reports whether the soak suites run at full length.
func Soaking() bool { return *soak != "" }

// Outcomes returns how many requests have an outcome.
func (l *Ledger) Outcomes() int64 {
	return l.answered.Load() + l.refused.Load() + l.late.Load() + l.lost.Load() + l.wrong.Load()
}
