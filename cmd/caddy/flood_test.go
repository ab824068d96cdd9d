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
)

const (
	// What a client address may have under way by default.
	requestsAtOnce = 64
	callsAtOnce    = 8

	// attacker is the user of logins that wait for ever.
	attacker     = "no.such.person"
	attackerBody = `{"userID":"` + attacker + `","domain":"mydomain.com","password":"push"}`

	// pendingBody asks for a login that nobody requested.
	pendingBody = `{"serialNumber":"VDS1234567-1","challengeKey":"none"}`
)

// tooMany is the answer to a request that is one too many.
var tooMany = expectation{http.StatusTooManyRequests, "STAT_ERROR", -1}

// startFlooded starts a gateway with its default limits of what is in flight. Bodies
// may take longer than the test.
func startFlooded(t *testing.T, edit func(limits object)) (*gateway, *oas) {
	t.Helper()
	certs := certificates(t)
	server := startOAS(t, certs)
	return startGateway(t, certs, server.URL, func(dsapp object) {
		dsapp["authentication_servers"].(object)["timeout"] = (2 * deadline).String()
		limits := dsapp["limits"].(object)
		delete(limits, "requests_in_flight")
		delete(limits, "calls_in_flight")
		limits["body_timeout"] = "5m"
		if edit != nil {
			edit(limits)
		}
	}), server
}

// answer posts a body and returns the whole answer.
func (g *gateway) answer(t *testing.T, path, key, body string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")
	status, header, answer, err := g.Do(r)
	require.NoError(t, err)
	return reply{status: status, header: header, body: answer}
}

// refused is how many requests from an address were one too many, as the access log
// has it.
func (g *gateway) refused(t *testing.T, address string) int {
	t.Helper()
	statuses := g.accesses(t, address)
	return len(statuses) - len(slices.DeleteFunc(statuses, func(s int) bool { return s == http.StatusTooManyRequests }))
}

// wantComeBack checks an answer that tells to come back in a second.
func wantComeBack(t *testing.T, got reply) {
	t.Helper()
	tooMany.check(t, got.status, got.body)
	assert.Equal(t, "1", got.header.Get("Retry-After"))
}

// Bodies that are announced on many streams and never come cost little memory, since
// one address may have only so many of them. Others are served meanwhile, and so is
// the bank at the same address.
func TestStalledStreams(t *testing.T) {
	t.Parallel()
	const connections, streams = 8, 240
	g, _ := startFlooded(t, nil)
	before := g.heap(t)
	header := literal(":method", "POST") + literal(":scheme", "https") + literal(":authority", "localhost") + literal(":path", onlinePath) +
		literal("authorization", basic(frontEndKey+":")) + literal("content-type", "application/json")
	wires := make([]*wire, connections)
	for i := range wires {
		w := g.dial(t, "h2")
		wires[i] = w
		go func() { _, _ = io.Copy(io.Discard, w) }()
		var text strings.Builder
		text.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, ""))
		for stream := range uint32(streams) {
			const endHeaders = 4
			text.WriteString(frame(1, endHeaders, 2*stream+1, header))
		}
		w.say(text.String())
	}
	poll(t, "all but those that may wait to be refused", func() bool { return g.refused(t, "127.0.0.1") == connections*streams-requestsAtOnce })
	assert.Less(t, g.heap(t)-before, 64<<20)

	wantComeBack(t, g.answer(t, serverTimePath, frontEndKey, ""))
	wantComeBack(t, g.answer(t, serverTimePath, "no-such-front-end-key", ""))
	g.serves(t)
	g.Register(t)
	assert.Equal(t, connections*streams-requestsAtOnce+2, g.refused(t, "127.0.0.1"))

	for _, w := range wires {
		w.Close()
	}
	poll(t, "the address to be served again", func() bool {
		return g.answer(t, serverTimePath, frontEndKey, "").status == http.StatusOK
	})
}

// hang begins so many logins that the authentication server never answers, and waits
// until it has as many of them as may be under way and the others are refused. They
// end with the context.
func (g *gateway) hang(ctx context.Context, t *testing.T, logins int, waiting func() int64) *sync.WaitGroup {
	t.Helper()
	var all sync.WaitGroup
	refused := make(chan reply, logins)
	for range logins {
		all.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+onlinePath, strings.NewReader(attackerBody))
			if err != nil {
				return
			}
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(frontEndKey, "")
			if status, header, body, err := g.Do(r); err == nil {
				refused <- reply{status: status, header: header, body: body}
			}
		})
	}
	poll(t, "the logins to hang", func() bool { return waiting() == callsAtOnce && len(refused) == logins-callsAtOnce })
	for range logins - callsAtOnce {
		wantComeBack(t, <-refused)
	}
	return &all
}

// Logins that hang at the authentication server, of a client that has the phones' key,
// take nothing from other clients and from the bank.
func TestHangingLogins(t *testing.T) {
	t.Parallel()
	const addresses, rounds = 10, 10
	g, server := startFlooded(t, nil)
	waiting, most, release := server.holdLogins(attacker)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logins := g.from(t, "127.0.0.9").hang(ctx, t, 140, waiting)

	var others sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	call := func(g *gateway, path, key, body string) {
		status, answer, err := g.try(t.Context(), path, key, body)
		mu.Lock()
		defer mu.Unlock()
		answers[fmt.Sprintf("%s: %d %v", path, status, err)]++
		if err != nil || status != http.StatusOK {
			answers["failed"]++
			return
		}
		if key == backEndKey && !strings.Contains(answer, "RET_SUCCESS") {
			answers["failed"]++
		}
	}
	began := time.Now()
	for i := range addresses {
		phone := g.from(t, fmt.Sprintf("127.0.0.%d", 20+i))
		registering := fmt.Sprintf(`{"userID":%q,"domain":%q,"staticPassword":%q}`, activationUser(i), domain, staticPassword)
		others.Go(func() {
			for range rounds {
				call(phone, retrievalPath, frontEndKey, pendingBody)
				call(phone, notificationPath, frontEndKey, notifying.body("0A0B"))
			}
		})
		others.Go(func() {
			for range rounds {
				call(g, registerPath, backEndKey, registering)
			}
		})
	}
	// Logins are few at a time: how many may wait for a person is another limit.
	phone := g.from(t, "127.0.0.40")
	for range addresses * rounds {
		call(phone, onlinePath, frontEndKey, onlineBody)
	}
	others.Wait()
	const calls = 4 * addresses * rounds
	assert.LessOrEqual(t, answers["failed"], calls/100, "%v", answers)
	assert.EqualValues(t, callsAtOnce, waiting(), "after %s", time.Since(began))
	assert.EqualValues(t, callsAtOnce, most())

	cancel() // does not end them: the server still has them
	release()
	logins.Wait()
	poll(t, "the address to be served again", func() bool {
		return g.from(t, "127.0.0.9").answer(t, onlinePath, frontEndKey, onlineBody).status == http.StatusOK
	})
}

// What is counted, per minute and in flight, is still counted after a reload.
func TestLimitsSurviveReloads(t *testing.T) {
	t.Parallel()
	// A token comes back after a minute.
	g, server := startFlooded(t, func(limits object) {
		limits["failed_keys_per_minute"], limits["exchanges_per_minute"], limits["registrations_per_minute"] = 1, 1, 1
	})
	waiting, _, release := server.holdLogins(attacker)
	phone := g.from(t, "127.0.0.9")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logins := phone.hang(ctx, t, callsAtOnce+2, waiting)
	for range requestsAtOnce {
		g.dial(t, "http/1.1").say(message(onlinePath, frontEndKey, "{", "Content-Length: 1000"))
	}
	poll(t, "the requests to be under way", func() bool { return g.answer(t, serverTimePath, frontEndKey, "").status != http.StatusOK })
	spent := []struct {
		name            string
		g               *gateway
		path, key, body string
		first           int
	}{
		{"failed keys", g.from(t, "127.0.0.10"), serverTimePath, "no-such-front-end-key", "", http.StatusUnauthorized},
		{"first calls", g.from(t, "127.0.0.11"), ephemeralKeyPath, frontEndKey, firstBody, http.StatusOK},
		{"second calls", g.from(t, "127.0.0.11"), activationDataPath, frontEndKey, secondBody, http.StatusOK},
		{"registrations", g.from(t, "127.0.0.1"), registerPath, backEndKey, userBody, http.StatusOK},
	}
	for _, s := range spent {
		got := s.g.answer(t, s.path, s.key, s.body)
		assert.Equal(t, s.first, got.status, "%s: %s", s.name, got.body)
	}
	stillRefused := func() {
		t.Helper()
		for _, s := range spent {
			got := s.g.answer(t, s.path, s.key, s.body)
			tooMany.check(t, got.status, got.body)
			assert.NotEmpty(t, got.header.Get("Retry-After"), s.name)
		}
		wantComeBack(t, phone.answer(t, onlinePath, frontEndKey, onlineBody))
		wantComeBack(t, g.answer(t, serverTimePath, frontEndKey, ""))
		g.serves(t)
	}
	stillRefused()
	for range 2 {
		g.Load(t)
		// Connections to the configuration before would not tell.
		phone.client.CloseIdleConnections()
		stillRefused()
	}
	assert.EqualValues(t, callsAtOnce, waiting())

	// What ends after a reload ends where it was counted.
	release()
	logins.Wait()
	poll(t, "calls to be free again", func() bool { return phone.answer(t, onlinePath, frontEndKey, onlineBody).status == http.StatusOK })
}

// A request counts whether it is carried out or refused: whoever has a key cannot keep
// the gateway busy for nothing.
func TestRefusedRequestsCount(t *testing.T) {
	t.Parallel()
	const limit = 12
	g, _ := startFlooded(t, func(limits object) {
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
			"refused with the key of a front end", "127.0.0.10", frontEndKey,
			[]attempt{
				{"POST", onlinePath, "application/json", "[]", 400},
				{"POST", "/rest/v2/unknown", "application/json", "{}", 404},
				{"GET", onlinePath, "", "", 405},
				{"POST", onlinePath, "text/plain", onlineBody, 415},
			},
			attempt{"POST", onlinePath, "application/json", onlineBody, 429},
		},
		{
			"time", "127.0.0.11", frontEndKey,
			[]attempt{{"POST", serverTimePath, "application/json", "", 200}},
			attempt{"POST", onlinePath, "application/json", onlineBody, 429},
		},
		{
			"refused with the key of a back end", "127.0.0.1", backEndKey,
			[]attempt{
				{"POST", registerPath, "application/json", "{}", 400},
				{"POST", "/rest/v2/unknown", "application/json", "{}", 404},
				{"PUT", registerPath, "", "", 405},
				{"POST", registerPath, "text/plain", userBody, 415},
			},
			attempt{"POST", registerPath, "application/json", userBody, 429},
		},
	} {
		client := g.from(t, tc.address)
		do := func(a attempt) reply {
			r, err := http.NewRequestWithContext(t.Context(), a.method, client.URL+a.path, strings.NewReader(a.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", a.contentType)
			r.SetBasicAuth(tc.key, "")
			status, header, body, err := client.Do(r)
			require.NoError(t, err)
			return reply{status: status, header: header, body: body}
		}
		began := time.Now()
		admitted := 0
		var got reply
		for ; ; admitted++ {
			a := tc.attempts[admitted%len(tc.attempts)]
			if got = do(a); got.status == http.StatusTooManyRequests {
				break
			}
			assert.Equal(t, a.status, got.status, "%s: %s", tc.name, got.body)
			if admitted > limit+int(time.Since(began).Minutes()*limit) {
				break
			}
		}
		assert.GreaterOrEqual(t, admitted, limit, tc.name)
		tooMany.check(t, got.status, got.body)
		assert.NotEmpty(t, got.header.Get("Retry-After"), tc.name)
		// What is not refused otherwise counts for the same limit.
		got = do(tc.last)
		if refilled := int(time.Since(began).Minutes() * limit); admitted+1 > limit+refilled {
			assert.Equal(t, tc.last.status, got.status, "%s: %s", tc.name, got.body)
		}
	}
}

// A client that has a /48 is one with 16 times the limit, however many of its
// addresses it uses. Clients behind a NAT64 are as many as their IPv4 addresses, be its
// prefix the well-known one or a configured one.
func TestNetworksOfAddresses(t *testing.T) {
	t.Parallel()
	const limit = 3
	g := startBesieged(t, func(server, limits object) {
		server["trusted_proxies"] = object{"source": "static", "ranges": []string{"127.0.0.1"}}
		limits["calls_per_minute"] = limit
		limits["nat64_prefixes"] = []string{"2001:db8:122::/48"}
	})
	// admitted is how many of so many calls from addresses of a format are admitted, and
	// how many more than at once can be.
	admitted := func(calls int, format string, limit int) (n, refilled int) {
		began := time.Now()
		for i := range calls {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+serverTimePath, nil)
			require.NoError(t, err)
			r.Header.Set("X-Forwarded-For", fmt.Sprintf(format, i+1))
			r.SetBasicAuth(frontEndKey, "")
			status, _, body, err := g.Do(r)
			require.NoError(t, err)
			if status != http.StatusOK {
				tooMany.check(t, status, body)
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
