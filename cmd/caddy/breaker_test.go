package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const (
	breakerOpened = `"circuit breaker of instance opened"`
	breakerClosed = `"circuit breaker of instance closed"`
)

// statusOf makes the call that sends a command and returns the status.
func statusOf(t *testing.T, g *testbed.Gateway, c *testbed.Command) int {
	t.Helper()
	got, err := g.Send(t.Context(), c, "5EC2E7")
	require.NoError(t, err)
	return got.Status
}

// checkRefusedAtOnce makes calls for which the gateway connects to no server.
func checkRefusedAtOnce(t *testing.T, g *testbed.Gateway, c *testbed.Command, servers ...*testbed.Faulty) {
	t.Helper()
	for _, server := range servers {
		before := server.Connections.Load()
		defer func() {
			t.Helper()
			assert.Equal(t, before, server.Connections.Load(), "nothing arrives")
		}()
	}
	for range 3 {
		got, err := g.Send(t.Context(), c, "5EC2E7")
		require.NoError(t, err)
		testbed.Expect(http.StatusServiceUnavailable, "STAT_COMMS", -10).Check(t, got)
		got.RetryAfter(t)
	}
}

// Five faults in a row open the breaker of an instance: until the cooldown has ended, calls
// are refused without a connection. A reload, another configuration of the instance or of its
// breaker, or one that is rejected does not change that.
func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	primary := testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": testbed.Object{"cooldown": "10m"}}, primary.URL)
	primary.Misbehave(t, testbed.Answering((*testbed.Incoming).Reset))
	for range 4 {
		require.Equal(t, http.StatusBadGateway, statusOf(t, g, testbed.Registering))
	}
	// An answer resets the count.
	primary.Misbehave(t, testbed.Misconduct{})
	require.Equal(t, http.StatusOK, statusOf(t, g, testbed.Registering))
	primary.Misbehave(t, testbed.Answering((*testbed.Incoming).Reset))
	for range 5 {
		require.Equal(t, http.StatusBadGateway, statusOf(t, g, testbed.Registering))
	}
	assert.Equal(t, 5, primary.Arrived(testbed.Registering.Operation))
	primary.Misbehave(t, testbed.Misconduct{})
	for _, c := range testbed.Commands {
		checkRefusedAtOnce(t, g, c, primary)
	}
	g.Load(t)
	checkRefusedAtOnce(t, g, testbed.Registering, primary)
	servers := g.App()["authentication_servers"].(testbed.Object)
	servers["timeout"] = "7s"
	servers["instances"].([]testbed.Object)[0]["name"] = "renamed"
	g.Load(t)
	checkRefusedAtOnce(t, g, testbed.Notifying, primary)
	g.AwaitLog(t, breakerOpened)
	servers["breaker"].(testbed.Object)["failures"] = 1000
	g.Load(t)
	checkRefusedAtOnce(t, g, testbed.Registering, primary)
	servers["deployment"] = "no-such-deployment"
	status, answer := g.TryLoad(t)
	require.Equal(t, http.StatusBadRequest, status, answer)
	checkRefusedAtOnce(t, g, testbed.Registering, primary)
	assert.Equal(t, 1, strings.Count(g.Logs.String(), breakerOpened))
	assert.Zero(t, strings.Count(g.Logs.String(), breakerClosed))
}

// The table says which outcomes of a command count for the breaker.
func TestBreakerCounts(t *testing.T) {
	t.Parallel()
	const failures = 3
	certs := testbed.Certificates(t)
	primary := testbed.StartFaulty(t, certs, nil)
	breaker := testbed.Object{"failures": failures, "cooldown": "100ms"}
	patient := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": breaker}, primary.URL)
	hasty := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": breaker, "timeout": "3s"}, primary.URL)
	refusal := func(status string, code int) testbed.Misconduct {
		return testbed.Answering(func(x *testbed.Incoming) { x.Respond(http.StatusOK, testbed.XML, x.Refusal(status, code, "")) })
	}
	for _, tc := range []struct {
		name    string
		conduct testbed.Misconduct
		command *testbed.Command
		status  int
		counts  bool
	}{
		{"refused", testbed.Misconduct{Refuse: true}, testbed.Registering, http.StatusServiceUnavailable, true},
		{"closed in the handshake", testbed.Misconduct{Connected: func(context.Context, net.Conn) {}}, testbed.Registering, http.StatusServiceUnavailable, true},
		{"reset", testbed.Answering((*testbed.Incoming).Reset), testbed.Authenticating, http.StatusBadGateway, true},
		{"no answer", testbed.Answering((*testbed.Incoming).Hang), testbed.Registering, http.StatusGatewayTimeout, true},
		{"HTTP error", testbed.Answering(func(x *testbed.Incoming) { x.Respond(http.StatusInternalServerError, "text/plain", "no") }), testbed.Registering, http.StatusBadGateway, true},
		{"nonsense", testbed.Answering(func(x *testbed.Incoming) { x.Respond(http.StatusOK, testbed.XML, "<no/>") }), testbed.Registering, http.StatusBadGateway, true},
		{"Fault Server", testbed.Answering(testbed.SOAPFault("1.1", 500, "Server")), testbed.Registering, http.StatusBadGateway, true},
		{"STAT_COMMS", refusal("STAT_COMMS", -10), testbed.Registering, http.StatusOK, true},
		{"STAT_LICENCE", refusal("STAT_LICENCE", -11), testbed.Notifying, http.StatusOK, true},
		{"refusal", refusal("STAT_INVCREDENTIALS", 1000), testbed.Authenticating, http.StatusOK, false},
		{"unspecified error", refusal("STAT_ERROR", -1), testbed.Registering, http.StatusOK, false},
		{"not found", refusal("STAT_NOT_FOUND", -13), testbed.Retrieving, http.StatusOK, false},
		{"Fault Client", testbed.Answering(testbed.SOAPFault("1.1", 500, "Client")), testbed.Registering, http.StatusBadGateway, false},
		{"no answer to a login, nor to anything else", testbed.Answering((*testbed.Incoming).Hang), testbed.Authenticating, http.StatusGatewayTimeout, true},
	} {
		g := patient
		if tc.status == http.StatusGatewayTimeout {
			g = hasty
		}
		opened, closed := strings.Count(g.Logs.String(), breakerOpened), strings.Count(g.Logs.String(), breakerClosed)
		primary.Misbehave(t, tc.conduct)
		for range failures {
			require.Equal(t, tc.status, statusOf(t, g, tc.command), tc.name)
		}
		if !tc.counts {
			require.Equal(t, tc.status, statusOf(t, g, tc.command), tc.name)
			assert.Equal(t, failures+1, primary.Arrived(tc.command.Operation), tc.name)
			primary.Misbehave(t, testbed.Misconduct{})
			assert.Equal(t, http.StatusOK, statusOf(t, g, tc.command), tc.name)
			assert.Equal(t, opened, strings.Count(g.Logs.String(), breakerOpened), tc.name)
			continue
		}
		poll.Until(t, tc.name+": breaker to open", func() bool { return strings.Count(g.Logs.String(), breakerOpened) == opened+1 })
		primary.Misbehave(t, testbed.Misconduct{})
		poll.Until(t, tc.name+": breaker to close", func() bool { return statusOf(t, g, tc.command) == http.StatusOK })
		poll.Until(t, tc.name+": log", func() bool { return strings.Count(g.Logs.String(), breakerClosed) == closed+1 })
	}
}

// blackHole returns the URL of an address that accepts no connection and refuses none: the
// queue of its listener is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	bound, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
	for range 100 {
		c, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return "https://" + address + "/"
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	require.Fail(t, "the queue takes everything")
	return ""
}

// If there is a second instance, calls go to it while the breaker of the first is open. They
// fail neither, nor do they wait for a connection to the first.
func TestBreakerTakeover(t *testing.T) {
	t.Parallel()
	const failures = 2
	certs := testbed.Certificates(t)
	t.Run("black hole", func(t *testing.T) {
		t.Parallel()
		const dialTimeout = time.Second
		backup := testbed.StartFaulty(t, certs, nil)
		g := testbed.StartOnFaulty(t, certs, testbed.Object{
			"dial_timeout": dialTimeout.String(), "breaker": testbed.Object{"failures": failures, "cooldown": "10m"},
		}, blackHole(t), backup.URL)
		for i := range failures + 20 {
			got, err := g.Send(t.Context(), testbed.Registering, "5EC2E7")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, got.Status, got.Body)
			if i < failures {
				assert.GreaterOrEqual(t, got.Took, dialTimeout)
			}
		}
		poll.Until(t, "the log of the last call", func() bool {
			return strings.Count(g.Logs.String(), `"status":"STAT_SUCCESS"`) == failures+20
		})
		dialled := 0
		for line := range strings.Lines(g.Logs.String()) {
			if strings.Contains(line, `"authentication server called"`) && strings.Contains(line, ": dial tcp ") {
				dialled++
			}
		}
		assert.Equal(t, failures, dialled, "calls with an open breaker do not connect to the first instance")
	})
	t.Run("faults", func(t *testing.T) {
		t.Parallel()
		primary, backup := testbed.StartFaulty(t, certs, nil), testbed.StartFaulty(t, certs, nil)
		g := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": testbed.Object{"failures": failures, "cooldown": "10m"}}, primary.URL, backup.URL)
		primary.Misbehave(t, testbed.Answering((*testbed.Incoming).Reset))
		for range failures {
			require.Equal(t, http.StatusBadGateway, statusOf(t, g, testbed.Registering))
		}
		connections := primary.Connections.Load()
		for _, c := range testbed.Commands {
			assert.Equal(t, http.StatusOK, statusOf(t, g, c))
			assert.Equal(t, 1, backup.Arrived(c.Operation))
		}
		assert.Equal(t, connections, primary.Connections.Load())
	})
}

// After the cooldown only one of many commands tries the instance. When it succeeds, all others
// are let through.
func TestBreakerTrial(t *testing.T) {
	t.Parallel()
	const callers = 8
	certs := testbed.Certificates(t)
	primary := testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": testbed.Object{"failures": 1, "cooldown": "3s"}}, primary.URL)
	primary.Misbehave(t, testbed.Answering((*testbed.Incoming).Reset))
	require.Equal(t, http.StatusBadGateway, statusOf(t, g, testbed.Registering))

	release := make(chan struct{})
	primary.Misbehave(t, testbed.Answering(func(x *testbed.Incoming) {
		select {
		case <-release:
			x.Respond(http.StatusOK, testbed.XML, x.Answer())
		case <-x.Context.Done():
		}
	}))
	ended := make(chan int, callers)
	for range callers {
		go func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				status, _, err := g.Try(t.Context(), testbed.Registering.Path, testbed.Registering.Key, testbed.Registering.Body("5EC2E7"))
				if err != nil || status != http.StatusServiceUnavailable || primary.Arrived(testbed.Registering.Operation) > 0 {
					ended <- status
					return
				}
				<-tick.C
			}
		}()
	}
	for range callers - 1 {
		assert.Equal(t, http.StatusServiceUnavailable, <-ended)
	}
	assert.Equal(t, 1, primary.Arrived(testbed.Registering.Operation), "one command tries")
	close(release)
	assert.Equal(t, http.StatusOK, <-ended)
	for range callers {
		go func() {
			status, _, _ := g.Try(t.Context(), testbed.Registering.Path, testbed.Registering.Key, testbed.Registering.Body("5EC2E7"))
			ended <- status
		}()
	}
	for range callers {
		assert.Equal(t, http.StatusOK, <-ended)
	}
	assert.Equal(t, 1+callers, primary.Arrived(testbed.Registering.Operation))
}

// Probes notice that a server is gone, and that it is back, so that no command has to fail for
// that.
func TestBreakerProbe(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	primary, backup := testbed.StartFaulty(t, certs, nil), testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"probe_interval": "50ms", "breaker": testbed.Object{"failures": 1000, "cooldown": "200ms"}}, primary.URL, backup.URL)
	for i := 1; i <= 3; i++ {
		primary.Misbehave(t, testbed.Misconduct{Refuse: true})
		backup.Misbehave(t, testbed.Misconduct{})
		poll.Until(t, "breaker to open", func() bool { return strings.Count(g.Logs.String(), breakerOpened) == i })
		require.Equal(t, http.StatusOK, statusOf(t, g, testbed.Registering))
		assert.Equal(t, 1, backup.Arrived(testbed.Registering.Operation))
		primary.Misbehave(t, testbed.Misconduct{})
		poll.Until(t, "server to be reached", func() bool { return strings.Count(g.Logs.String(), `"instance reached again"`) == i })
		require.Equal(t, http.StatusOK, statusOf(t, g, testbed.Registering))
		assert.Equal(t, 1, primary.Arrived(testbed.Registering.Operation), "the first command after the return")
		poll.Until(t, "breaker to close", func() bool { return strings.Count(g.Logs.String(), breakerClosed) == i })
	}
	// Probes are no commands and leave no connection open.
	before := primary.Connections.Load()
	poll.Until(t, "probes", func() bool { return primary.Connections.Load() > before+3 })
	assert.Equal(t, 1, primary.Arrived(testbed.Registering.Operation))
}

// A command that belongs to an instance is not sent to another one while the breaker is open,
// and does not use up the admission that it needs.
func TestBreakerAffinity(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	primary, backup := testbed.StartFaulty(t, certs, nil), testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": testbed.Object{"failures": 1, "cooldown": "10s"}}, primary.URL, backup.URL)
	got, err := g.Send(t.Context(), testbed.Registering, "5EC2E7")
	require.NoError(t, err)
	var registered struct{ Result testbed.Registration }
	require.NoError(t, json.Unmarshal([]byte(got.Body), &registered))
	require.NotEmpty(t, registered.Result.Identifier, got.Body)
	add := func() testbed.Reply {
		got, err := g.Send(t.Context(), testbed.AddingDevice, registered.Result.Identifier)
		require.NoError(t, err)
		return got
	}

	primary.Misbehave(t, testbed.Answering((*testbed.Incoming).Reset))
	require.Equal(t, http.StatusBadGateway, statusOf(t, g, testbed.Registering))
	got = add()
	testbed.Expect(http.StatusServiceUnavailable, "STAT_COMMS", -10).Check(t, got)
	assert.NotEmpty(t, got.Header.Get("Retry-After"))
	primary.Misbehave(t, testbed.Misconduct{})
	poll.Until(t, "the device to be added", func() bool {
		got = add()
		return got.Status != http.StatusServiceUnavailable
	})
	testbed.Expect(http.StatusOK, "STAT_SUCCESS", 0).Check(t, got)
	assert.Equal(t, 1, primary.Arrived(testbed.AddingDevice.Operation))
	assert.Zero(t, backup.Connections.Load())
}
