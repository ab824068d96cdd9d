package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const (

	// slowTimeout is the timeout of calls of servers that are slow. It is long enough for the
	// steps before the one that is slow.
	slowTimeout = 3 * time.Second

	// maxGrowth is how much a whole table may add to the peak of the memory, in KiB. Which of the
	// long answers are in memory when the garbage collector sets its goal makes a difference of
	// 28 MiB from run to run.
	maxGrowth = 96 << 10
	bombSize  = 50 << 20
)

// faultKind is what a fault says about the command.
type faultKind int

const (
	// faultNone: there is no fault, and the answer is right.
	faultNone faultKind = iota
	// faultUnsent: the server has not seen the command.
	faultUnsent
	// faultLost, faultBad and faultLate: nobody knows whether the command was carried out.
	faultLost
	faultBad
	faultLate
	// faultEarly: either faultLost or faultUnsent, as the connection ended while the command
	// was about to be sent.
	faultEarly
	// faultServer: the server says in a SOAP Fault that it is out of order.
	faultServer
	// faultSender: a SOAP Fault says that the command is wrong.
	faultSender
	// faultCoded: the server says in a status code that it is out of order.
	faultCoded
	// faultRefusal: the server refuses the command.
	faultRefusal
)

// faultReasons are the errors that the log has for each kind.
var faultReasons = map[faultKind]string{
	faultUnsent: "command was not sent", faultLost: "connection lost after the command was sent", faultBad: "unusable answer",
	faultLate: "no answer in time", faultServer: "SOAP Fault", faultSender: "SOAP Fault",
}

// fault is a row of the table.
type fault struct {
	name string
	kind faultKind
	testbed.Misconduct
	// unread means that the server reads no command.
	unread bool
	// status and code are those of a faultCoded or faultRefusal.
	status string
	code   int
	// says is a part of the error in the log.
	says string
}

// faultOutcome is the answer to a client, and how many commands the two instances get.
type faultOutcome struct {
	testbed.Expectation
	primary, backup int
}

// outcomes returns the documented outcomes of a command that meets the fault on the first of
// one or two instances. Only a faultEarly has more than one.
func (f *fault) outcomes(c *testbed.Command, two bool) []faultOutcome {
	ok := testbed.Expect(http.StatusOK, "STAT_SUCCESS", 0)
	comms := func(status int) testbed.Expectation { return testbed.Expect(status, "STAT_COMMS", -10) }
	read := 1
	if f.unread {
		read = 0
	}
	elsewhere := func(permitted bool, o testbed.Expectation) []faultOutcome {
		if permitted && two {
			return []faultOutcome{{ok, read, 1}}
		}
		return []faultOutcome{{o, read, 0}}
	}
	switch f.kind {
	case faultNone:
		return []faultOutcome{{ok, 1, 0}}
	case faultUnsent:
		read = 0
		return elsewhere(true, comms(http.StatusServiceUnavailable))
	case faultLost, faultBad:
		return elsewhere(c.Retries == testbed.RetryHarmless, comms(http.StatusBadGateway))
	case faultLate:
		return elsewhere(c.Retries == testbed.RetryHarmless, comms(http.StatusGatewayTimeout))
	case faultEarly:
		read = 0
		return append(elsewhere(true, comms(http.StatusServiceUnavailable)),
			elsewhere(c.Retries == testbed.RetryHarmless, comms(http.StatusBadGateway))...)
	case faultServer, faultCoded:
		alone := testbed.Expect(http.StatusBadGateway, "STAT_COMMS", -10)
		if f.kind == faultCoded {
			alone = testbed.Expect(http.StatusOK, f.status, f.code)
		}
		if c.Search {
			alone = comms(http.StatusServiceUnavailable)
		}
		return elsewhere(c.Retries != testbed.RetryUnsent, alone)
	case faultSender:
		return elsewhere(false, comms(http.StatusBadGateway))
	default:
		return elsewhere(false, testbed.Expect(http.StatusOK, f.status, f.code))
	}
}

// faultTable runs rows against a gateway.
type faultTable struct {
	*testbed.Gateway
	ledger  *testbed.Ledger
	primary *testbed.Faulty
	backup  *testbed.Faulty // may be nil
	timeout time.Duration

	secrets atomic.Int64
	slowest time.Duration
	ran     int
}

// secret returns a value for a command that occurs nowhere else: hexadecimal digits, but too
// few for a wrapped key.
func (f *faultTable) secret() string {
	return fmt.Sprintf("5EC2E7%06X%012X", os.Getpid()&0xffffff, f.secrets.Add(1))
}

// Run runs a row with all commands at the same time.
func (f *faultTable) Run(t *testing.T, row fault) {
	t.Helper()
	f.primary.Misbehave(t, row.Misconduct)
	if f.backup != nil {
		f.backup.Misbehave(t, testbed.Misconduct{})
	}
	logged := len(f.Logs.String())
	var mu sync.Mutex
	var wg sync.WaitGroup
	var secrets []string
	problem := func(c *testbed.Command, format string, arguments ...any) {
		mu.Lock()
		defer mu.Unlock()
		assert.Fail(t, row.name+", "+c.Operation+": "+fmt.Sprintf(format, arguments...))
	}
	for _, c := range testbed.Commands {
		secret := f.secret()
		secrets = append(secrets, secret)
		wg.Go(func() {
			f.ledger.Sent()
			got, err := f.Send(t.Context(), c, secret)
			if err != nil {
				f.ledger.Lost("%s, %s: %v", row.name, c.Operation, err)
				return
			}
			var deviations []string
			for _, want := range row.outcomes(c, f.backup != nil) {
				deviation := f.compare(want, row, c, got)
				if deviation == "" {
					if got.Status == http.StatusServiceUnavailable {
						f.ledger.Refused()
					} else {
						f.ledger.Answered()
					}
					mu.Lock()
					f.slowest = max(f.slowest, got.Took)
					mu.Unlock()
					return
				}
				deviations = append(deviations, deviation)
			}
			f.ledger.Wrong("%s, %s: %s", row.name, c.Operation, strings.Join(deviations, "; or "))
		})
	}
	wg.Wait()
	// The log arrives through a pipe, later than the answer.
	written, cancel := context.WithTimeout(t.Context(), poll.Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, c := range testbed.Commands {
		ok := row.kind == faultEarly || row.kind == faultNone
		var said string
		for !ok {
			if said, ok = f.said(f.Logs.String()[logged:], row, c); ok {
				break
			}
			select {
			case <-tick.C:
				continue
			case <-written.Done():
			}
			break
		}
		if !ok {
			problem(c, "the log says: %s", said)
		}
	}
	all := f.Logs.String()[logged:]
	for _, secret := range secrets {
		if i := strings.Index(all, secret); i >= 0 {
			assert.Fail(t, row.name+": the log has a value of a command", "%s", all[max(0, i-300):min(len(all), i+100)])
		}
	}
	f.ran++
}

// compare returns the differences between an outcome and what the client and the servers got.
func (f *faultTable) compare(want faultOutcome, row fault, c *testbed.Command, got testbed.Reply) string {
	var deviations []string
	deviate := func(format string, arguments ...any) {
		deviations = append(deviations, fmt.Sprintf(format, arguments...))
	}
	codes := fmt.Sprintf(`"statusCodeEnum":%q,`, want.Enum)
	number := fmt.Sprintf(`"statusCode":%d}`, want.Code)
	if got.Status != want.Status || !strings.Contains(got.Body, codes) || !strings.Contains(got.Body, number) {
		deviate("status %d and %s, want %d and %s (%d)", got.Status, got.Body, want.Status, want.Enum, want.Code)
	}
	if result := strings.Contains(got.Body, `"result":`); result && want.Enum != "STAT_SUCCESS" {
		deviate("a result in %s", got.Body)
	}
	retryAfter, err := strconv.Atoi(got.Header.Get("Retry-After"))
	if want.Status == http.StatusServiceUnavailable {
		if err != nil || retryAfter < 1 {
			deviate("Retry-After %q", got.Header.Get("Retry-After"))
		}
	} else if got.Header.Get("Retry-After") != "" {
		deviate("Retry-After %q", got.Header.Get("Retry-After"))
	}
	if n := f.primary.Arrived(c.Operation); n != want.primary {
		deviate("%d commands at the first instance, want %d", n, want.primary)
	}
	if f.backup != nil {
		if n := f.backup.Arrived(c.Operation); n != want.backup {
			deviate("%d commands at the second instance, want %d", n, want.backup)
		}
	}
	if row.kind == faultLate && got.Took < f.timeout {
		deviate("an answer after %s", got.Took)
	}
	return strings.Join(deviations, ", ")
}

// said reports whether the log has the error of the row for a command. If not, it returns the
// errors that it has.
func (f *faultTable) said(log string, row fault, c *testbed.Command) (string, bool) {
	var found []string
	for line := range strings.Lines(log) {
		var record struct{ Msg, Operation, Instance, Error, Status string }
		if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "authentication server called" ||
			record.Operation != c.Operation || record.Instance != "primary" {
			continue
		}
		if strings.Contains(record.Error, faultReasons[row.kind]) && strings.Contains(record.Error, row.says) && record.Status == row.status {
			return "", true
		}
		found = append(found, record.Error+record.Status)
	}
	return strings.Join(found, "; "), false
}

// Whatever an authentication server does with a command, the client gets the documented answer,
// no server gets the command more often than is harmless, and nothing is left behind: no
// memory, no goroutine, no descriptor, and no value of the command in the log.
func TestSoakFaults(t *testing.T) {
	t.Parallel()
	for _, instances := range []string{"one instance", "two instances"} {
		for _, speed := range []string{"fast", "slow"} {
			t.Run(instances+" "+speed, func(t *testing.T) {
				t.Parallel()
				testFaults(t, instances == "two instances", speed == "slow")
			})
		}
	}
}

func testFaults(t *testing.T, two, slow bool) {
	l := testbed.NewLedger(t, strings.TrimPrefix(t.Name(), "TestSoak"))
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	f := &faultTable{ledger: l, timeout: poll.Patience}
	if slow {
		f.timeout = slowTimeout
	}
	f.primary = testbed.StartFaulty(t, certs, server)
	if two {
		f.backup = testbed.StartFaulty(t, certs, nil)
	}
	addresses := []string{f.primary.URL}
	if two {
		addresses = append(addresses, f.backup.URL)
	}
	f.Gateway = testbed.StartOnFaulty(t, certs, testbed.Object{"timeout": f.timeout.String(), "breaker": testbed.Object{"failures": 1000}}, addresses...)

	forbidden, contacts := trapConnections(t)
	var connections, answers []fault
	if slow {
		answers = slowFaults()
		connections, answers = answers[:2], answers[2:]
	} else {
		connections, answers = connectionFaults(t, f.primary, certs), answerFaults(forbidden)
		bomb() // takes a while
	}
	right := fault{name: "no fault"}
	for range 5 {
		f.Run(t, right)
	}
	f.ran, f.slowest = 0, 0
	l.Watch(t, f.Gateway)
	before, err := f.Usage()
	require.NoError(t, err)

	// Faults of connections would also hit those of a load.
	for _, row := range connections {
		f.Run(t, row)
	}
	f.Run(t, right)
	var load *testbed.Load
	if testbed.Soaking() && !slow {
		load = testbed.StartLoad(t, l, testbed.LoadOptions{Gateways: []*testbed.Gateway{f.Gateway}, Server: server})
	}
	for range testbed.Length(1, 3) {
		for _, row := range answers {
			f.Run(t, row)
		}
	}
	if load != nil {
		load.Stop()
	}
	f.Run(t, right)

	assert.Zero(t, contacts.Load(), "an address was contacted that only an answer named")
	after, err := f.Usage()
	require.NoError(t, err)
	// With a load, the peak is that of the load.
	if load == nil {
		assert.Less(t, after.Peak-before.Peak, maxGrowth, "KiB")
	}
	t.Logf("%d rows of %d commands, slowest answer %s, peak memory %d KiB, was %d KiB", f.ran, len(testbed.Commands),
		f.slowest.Round(time.Millisecond), after.Peak, before.Peak)
}
