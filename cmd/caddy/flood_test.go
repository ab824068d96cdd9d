package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const (
	// These are the defaults for one client address at the same time.
	requestsAtOnce = 64
	callsAtOnce    = 8

	// attacker is a user whose logins wait for ever.
	attacker     = "no.such.person"
	attackerBody = `{"userID":"` + attacker + `","domain":"mydomain.com","password":"push"}`
)

// tooMany is the answer to a client that exceeds a limit.
var tooMany = testbed.Expect(http.StatusTooManyRequests, "STAT_ERROR", -1)

// startFlooded starts a gateway with the default limits of requests in flight. Bodies may take
// longer than the test.
func startFlooded(t *testing.T, edit func(limits testbed.Object)) (*testbed.Gateway, *testbed.Server) {
	t.Helper()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	return testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["authentication_servers"].(testbed.Object)["timeout"] = (2 * poll.Patience).String()
		limits := dsapp["limits"].(testbed.Object)
		delete(limits, "requests_in_flight")
		delete(limits, "calls_in_flight")
		limits["body_timeout"] = "5m"
		if edit != nil {
			edit(limits)
		}
	}), server
}

// tooManyAt returns how many requests from an address the access log has with status 429.
func tooManyAt(t *testing.T, g *testbed.Gateway, address string) int {
	t.Helper()
	statuses := g.Accesses(t, address)
	return len(statuses) - len(slices.DeleteFunc(statuses, func(s int) bool { return s == http.StatusTooManyRequests }))
}

// wantComeBack checks that an answer tells the client to come back in a second.
func wantComeBack(t *testing.T, got testbed.Reply) {
	t.Helper()
	tooMany.Check(t, got)
	assert.Equal(t, "1", got.Header.Get("Retry-After"))
}

// Bodies that are announced on many streams and never arrive cost little memory, since an
// address may have only so many requests in flight. Others are served meanwhile, and so is the
// bank at the same address.
func TestStalledStreams(t *testing.T) {
	t.Parallel()
	const connections, streams = 8, 240
	g, _ := startFlooded(t, nil)
	before := g.Heap(t)
	header := testbed.HTTP2Field(":method", "POST") + testbed.HTTP2Field(":scheme", "https") + testbed.HTTP2Field(":authority", "localhost") + testbed.HTTP2Field(":path", testbed.LoginPath) +
		testbed.HTTP2Field("authorization", testbed.BasicAuth(testbed.FrontEndKey+":")) + testbed.HTTP2Field("content-type", "application/json")
	wires := make([]*testbed.Wire, connections)
	for i := range wires {
		w := g.Dial(t, "h2")
		wires[i] = w
		go func() { _, _ = io.Copy(io.Discard, w) }()
		var text strings.Builder
		text.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + testbed.HTTP2Frame(4, 0, 0, ""))
		for stream := range uint32(streams) {
			const endHeaders = 4
			text.WriteString(testbed.HTTP2Frame(1, endHeaders, 2*stream+1, header))
		}
		w.Say(text.String())
	}
	poll.Until(t, "all but those that may wait to be refused", func() bool { return tooManyAt(t, g, "127.0.0.1") == connections*streams-requestsAtOnce })
	assert.Less(t, g.Heap(t)-before, 64<<20)

	wantComeBack(t, g.Post(t, testbed.ServerTimePath, testbed.FrontEndKey, ""))
	wantComeBack(t, g.Post(t, testbed.ServerTimePath, "no-such-front-end-key", ""))
	g.Serves(t)
	g.Register(t)
	assert.Equal(t, connections*streams-requestsAtOnce+2, tooManyAt(t, g, "127.0.0.1"))

	for _, w := range wires {
		w.Close()
	}
	poll.Until(t, "the address to be served again", func() bool {
		return g.Post(t, testbed.ServerTimePath, testbed.FrontEndKey, "").Status == http.StatusOK
	})
}

// hangLogins begins logins that the authentication server does not answer. It waits until as
// many are under way as may be, and all others are refused. The logins end with the context.
func hangLogins(ctx context.Context, t *testing.T, g *testbed.Gateway, logins int, waiting func() int64) *sync.WaitGroup {
	t.Helper()
	var all sync.WaitGroup
	refused := make(chan testbed.Reply, logins)
	for range logins {
		all.Go(func() {
			if got, err := g.TryPost(ctx, testbed.LoginPath, testbed.FrontEndKey, attackerBody); err == nil {
				refused <- got
			}
		})
	}
	poll.Until(t, "the logins to hang", func() bool { return waiting() == callsAtOnce && len(refused) == logins-callsAtOnce })
	for range logins - callsAtOnce {
		wantComeBack(t, <-refused)
	}
	return &all
}

// A client with the phones' key whose logins hang at the authentication server does not slow
// down other clients or the bank.
func TestHangingLogins(t *testing.T) {
	t.Parallel()
	const addresses, rounds = 10, 10
	g, server := startFlooded(t, nil)
	waiting, most, release := server.HoldLogins(attacker)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	attackers := g.From(t, "127.0.0.9")
	logins := hangLogins(ctx, t, attackers, 140, waiting)

	var others sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	call := func(g *testbed.Gateway, path, key, body string) {
		status, answer, err := g.Try(t.Context(), path, key, body)
		mu.Lock()
		defer mu.Unlock()
		answers[fmt.Sprintf("%s: %d %v", path, status, err)]++
		if err != nil || status != http.StatusOK {
			answers["failed"]++
			return
		}
		if key == testbed.BackEndKey && !strings.Contains(answer, "RET_SUCCESS") {
			answers["failed"]++
		}
	}
	began := time.Now()
	for i := range addresses {
		phone := g.From(t, fmt.Sprintf("127.0.0.%d", 20+i))
		registering := fmt.Sprintf(`{"userID":%q,"domain":%q,"staticPassword":%q}`, testbed.ActivationUser(i), testbed.Domain, testbed.StaticPassword)
		others.Go(func() {
			for range rounds {
				call(phone, testbed.Login.RetrievePath, testbed.FrontEndKey, testbed.RetrieveBody)
				call(phone, testbed.NotificationPath, testbed.FrontEndKey, testbed.Notifying.Body("0A0B"))
			}
		})
		others.Go(func() {
			for range rounds {
				call(g, testbed.RegisterPath, testbed.BackEndKey, registering)
			}
		})
	}
	// These logins come one by one: another limit says how many may wait for a person.
	phone := g.From(t, "127.0.0.40")
	for range addresses * rounds {
		call(phone, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	}
	others.Wait()
	const calls = 4 * addresses * rounds
	assert.LessOrEqual(t, answers["failed"], calls/100, "%v", answers)
	assert.EqualValues(t, callsAtOnce, waiting(), "after %s", time.Since(began))
	assert.EqualValues(t, callsAtOnce, most())

	cancel() // does not end them: the server still has them
	release()
	logins.Wait()
	poll.Until(t, "the address to be served again", func() bool {
		return attackers.Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody).Status == http.StatusOK
	})
}

// Limits per minute and of requests in flight go on counting over a reload.
func TestLimitsSurviveReloads(t *testing.T) {
	t.Parallel()
	// Limits of 1 per minute are not refilled during the test.
	g, server := startFlooded(t, func(limits testbed.Object) {
		limits["failed_keys_per_minute"], limits["exchanges_per_minute"], limits["registrations_per_minute"] = 1, 1, 1
	})
	waiting, _, release := server.HoldLogins(attacker)
	phone := g.From(t, "127.0.0.9")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logins := hangLogins(ctx, t, phone, callsAtOnce+2, waiting)
	unfinished := func() {
		g.Dial(t, "http/1.1").Say(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "{", "Content-Length: 1000"))
	}
	for range requestsAtOnce {
		unfinished()
	}
	poll.Until(t, "the requests to be under way", func() bool {
		if g.Post(t, testbed.ServerTimePath, testbed.FrontEndKey, "").Status != http.StatusOK {
			return true
		}
		unfinished() // one of them may have met the request of this poll, and have been refused
		return false
	})
	spent := []struct {
		name            string
		g               *testbed.Gateway
		path, key, body string
		first           int
	}{
		{"failed keys", g.From(t, "127.0.0.10"), testbed.ServerTimePath, "no-such-front-end-key", "", http.StatusUnauthorized},
		{"first calls", g.From(t, "127.0.0.11"), testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody, http.StatusOK},
		{"second calls", g.From(t, "127.0.0.11"), testbed.ActivationDataPath, testbed.FrontEndKey, testbed.ActivationDataBody, http.StatusOK},
		{"registrations", g.From(t, "127.0.0.1"), testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody, http.StatusOK},
	}
	for _, s := range spent {
		got := s.g.Post(t, s.path, s.key, s.body)
		assert.Equal(t, s.first, got.Status, "%s: %s", s.name, got.Body)
	}
	stillRefused := func() {
		t.Helper()
		for _, s := range spent {
			got := s.g.Post(t, s.path, s.key, s.body)
			tooMany.Check(t, got)
			assert.NotEmpty(t, got.Header.Get("Retry-After"), s.name)
		}
		wantComeBack(t, phone.Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody))
		wantComeBack(t, g.Post(t, testbed.ServerTimePath, testbed.FrontEndKey, ""))
		g.Serves(t)
	}
	stillRefused()
	for range 2 {
		g.Load(t)
		// A connection to the configuration before would prove nothing.
		phone.Client.CloseIdleConnections()
		stillRefused()
	}
	assert.EqualValues(t, callsAtOnce, waiting())

	// A call that ends after a reload is taken off the count to which it was added.
	release()
	logins.Wait()
	poll.Until(t, "calls to be free again", func() bool {
		return phone.Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody).Status == http.StatusOK
	})
}

// Refused requests count like others, so that no client with a key can keep the gateway busy
// with them.
func TestRefusedRequestsCount(t *testing.T) {
	t.Parallel()
	const limit = 12
	g, _ := startFlooded(t, func(limits testbed.Object) {
		limits["calls_per_minute"], limits["registrations_per_minute"] = limit, limit
	})
	type attempt struct {
		method, path, contentType, body string
		status                          int
	}
	for _, tc := range []struct {
		name, address, key string
		attempts           []attempt
		last               attempt
	}{
		{
			"refused with the key of a front end", "127.0.0.10", testbed.FrontEndKey,
			[]attempt{
				{"POST", testbed.LoginPath, "application/json", "[]", 400},
				{"POST", "/rest/v2/unknown", "application/json", "{}", 404},
				{"GET", testbed.LoginPath, "", "", 405},
				{"POST", testbed.LoginPath, "text/plain", testbed.LoginBody, 415},
			},
			attempt{"POST", testbed.LoginPath, "application/json", testbed.LoginBody, 429},
		},
		{
			"time", "127.0.0.11", testbed.FrontEndKey,
			[]attempt{{"POST", testbed.ServerTimePath, "application/json", "", 200}},
			attempt{"POST", testbed.LoginPath, "application/json", testbed.LoginBody, 429},
		},
		{
			"refused with the key of a back end", "127.0.0.1", testbed.BackEndKey,
			[]attempt{
				{"POST", testbed.RegisterPath, "application/json", "{}", 400},
				{"POST", "/rest/v2/unknown", "application/json", "{}", 404},
				{"PUT", testbed.RegisterPath, "", "", 405},
				{"POST", testbed.RegisterPath, "text/plain", testbed.RegisterBody, 415},
			},
			attempt{"POST", testbed.RegisterPath, "application/json", testbed.RegisterBody, 429},
		},
	} {
		client := g.From(t, tc.address)
		do := func(a attempt) testbed.Reply {
			r, err := http.NewRequestWithContext(t.Context(), a.method, client.URL+a.path, strings.NewReader(a.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", a.contentType)
			r.SetBasicAuth(tc.key, "")
			got, err := client.Do(r)
			require.NoError(t, err)
			return got
		}
		began := time.Now()
		admitted := 0
		var got testbed.Reply
		for ; ; admitted++ {
			a := tc.attempts[admitted%len(tc.attempts)]
			if got = do(a); got.Status == http.StatusTooManyRequests {
				break
			}
			assert.Equal(t, a.status, got.Status, "%s: %s", tc.name, got.Body)
			if admitted > limit+int(time.Since(began).Minutes()*limit) {
				break
			}
		}
		assert.GreaterOrEqual(t, admitted, limit, tc.name)
		tooMany.Check(t, got)
		assert.NotEmpty(t, got.Header.Get("Retry-After"), tc.name)
		// A request that would be carried out counts for the same limit.
		got = do(tc.last)
		if refilled := int(time.Since(began).Minutes() * limit); admitted+1 > limit+refilled {
			assert.Equal(t, tc.last.status, got.Status, "%s: %s", tc.name, got.Body)
		}
	}
}

// A client with a /48 network has 16 times the limit, however many of its addresses it uses.
// Behind a NAT64, each IPv4 address is a client, with the well-known prefix and with a
// configured one.
func TestNetworksOfAddresses(t *testing.T) {
	t.Parallel()
	const limit = 3
	g := startBesieged(t, func(server, limits testbed.Object) {
		server["trusted_proxies"] = testbed.Object{"source": "static", "ranges": []string{"127.0.0.1"}}
		limits["calls_per_minute"] = limit
		limits["nat64_prefixes"] = []string{"2001:db8:122::/48"}
	})
	// admitted makes calls from addresses of a format. It returns how many were admitted, and
	// by how many the limit was refilled meanwhile.
	admitted := func(calls int, format string, limit int) (n, refilled int) {
		began := time.Now()
		for i := range calls {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.ServerTimePath, nil)
			require.NoError(t, err)
			r.Header.Set("X-Forwarded-For", fmt.Sprintf(format, i+1))
			r.SetBasicAuth(testbed.FrontEndKey, "")
			got, err := g.Do(r)
			require.NoError(t, err)
			if got.Status != http.StatusOK {
				tooMany.Check(t, got)
				continue
			}
			n++
		}
		return n, int(time.Since(began).Minutes()*float64(limit)) + 1
	}
	n, refilled := admitted(100, "2001:db8:1:%x::1", 16*limit)
	assert.GreaterOrEqual(t, n, 16*limit)
	assert.LessOrEqual(t, n, 16*limit+refilled)
	for _, tc := range []struct {
		format  string
		clients int
	}{
		{"2001:db8:2:%x::1", 8},
		{"2001:db8:3:4::%x", 1},
		{"192.0.2.%d", 8},
		{"64:ff9b::198.51.100.%d", 8},
		{"2001:db8:122:cb00:71:%02x00::", 8},  // 203.0.113.1 and so on
		{"2001:db8:122:c633:64:6300::%x", 1},  // 198.51.100.99
		{"2001:db8:122:cb00:171:%02x00::", 1}, // no NAT64 makes such ones
		{"::ffff:198.51.100.10%[1]d", 8},
	} {
		n, refilled := admitted(8, tc.format, limit)
		if tc.clients == 8 {
			assert.Equal(t, 8, n, tc.format)
			continue
		}
		assert.GreaterOrEqual(t, n, limit, tc.format)
		assert.LessOrEqual(t, n, limit+refilled, tc.format)
	}
}
