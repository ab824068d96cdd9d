package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// victim is an address that an attacker forges as the source of datagrams. Answers to it do not
// reach the attacker.
const victim = "127.0.0.9"

// startEarly starts a gateway that also serves HTTP/3. The function edit may change its
// configuration and the "dsapp" app in it.
func startEarly(t *testing.T, edit func(g *testbed.Gateway, dsapp testbed.Object)) (*testbed.Gateway, *testbed.Server) {
	t.Helper()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["body_timeout"] = patience.String()
	})
	g.HTTPServer()["protocols"] = []string{"h1", "h2", "h3"}
	if edit != nil {
		edit(g, g.App())
	}
	g.Start(t)
	return g, server
}

// awaitTooEarly waits until so many requests from an address are answered, all as too early.
func awaitTooEarly(t *testing.T, g *testbed.Gateway, address string, requests int) {
	t.Helper()
	var statuses []int
	poll.Until(t, "the requests to be answered", func() bool {
		statuses = g.Accesses(t, address)
		return len(statuses) == requests
	})
	assert.Empty(t, slices.DeleteFunc(statuses, func(s int) bool { return s == http.StatusTooEarly }), "answers to early data")
}

// tlsSession is a TLS session that can be resumed any number of times.
type tlsSession struct {
	mu    sync.Mutex
	state *tls.ClientSessionState
}

func (s *tlsSession) Get(string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.state != nil
}

func (s *tlsSession) Put(_ string, state *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		s.state = state
	}
}

// begin makes a first connection and keeps its session.
func (s *tlsSession) begin(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	c := dialQUIC(t, g, "127.0.0.1", s, false)
	<-c.HandshakeComplete()
	r := earlyRequest(t, g, http.MethodPost, testbed.ServerTimePath, testbed.FrontEndKey)
	resp, err := c.h3.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.False(t, c.ConnectionState().Used0RTT)
	poll.Until(t, "a session ticket", func() bool { _, ok := s.Get(""); return ok })
	require.NoError(t, c.CloseWithError(0, ""))
}

// socket drops what it receives while it is deaf.
type socket struct {
	net.PacketConn
	deaf atomic.Bool
}

func (s *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(p)
		if err != nil || !s.deaf.Load() {
			return n, from, err
		}
	}
}

// quicClient is a connection for HTTP/3.
type quicClient struct {
	*quic.Conn
	*socket
	h3 *http3.ClientConn
}

// dialQUIC opens a connection from a loopback address. With a session that allows early data it
// can send requests at once, even if it is deaf.
func dialQUIC(t *testing.T, g *testbed.Gateway, from string, s *tlsSession, deaf bool) *quicClient {
	t.Helper()
	pc, err := net.ListenPacket("udp", net.JoinHostPort(from, "0"))
	require.NoError(t, err)
	t.Cleanup(func() { pc.Close() })
	c := &quicClient{socket: &socket{PacketConn: pc}}
	c.deaf.Store(deaf)
	transport := &quic.Transport{Conn: c.socket}
	t.Cleanup(func() { transport.Close() })
	config := g.TLS()
	config.ServerName, config.NextProtos, config.ClientSessionCache = "localhost", []string{http3.NextProtoH3}, s
	address, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), poll.Patience)
	defer cancel()
	c.Conn, err = transport.DialEarly(ctx, address, config, &quic.Config{HandshakeIdleTimeout: poll.Patience})
	require.NoError(t, err)
	c.h3 = new(http3.Transport).NewClientConn(c.Conn)
	return c
}

func earlyRequest(t *testing.T, g *testbed.Gateway, method, path, key string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, nil)
	require.NoError(t, err)
	if key != "" {
		r.SetBasicAuth(key, "")
	}
	return r
}

// ask sends a request without a body and does not wait for anything.
func (c *quicClient) ask(t *testing.T, r *http.Request) *http3.RequestStream {
	t.Helper()
	stream, err := c.h3.OpenRequestStream(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.SendRequestHeader(r))
	// An error means that the gateway has already answered and reads no further.
	_ = stream.Close()
	return stream
}

// hear reads an answer.
func hear(t *testing.T, stream *http3.RequestStream) testbed.Reply {
	t.Helper()
	resp, err := stream.ReadResponse()
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return testbed.Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
}

// say sends a POST with a body, or with the beginning of one, and does not read the answer.
func (c *quicClient) say(t *testing.T, path, key, body string, all bool) {
	t.Helper()
	stream, err := c.OpenStream()
	require.NoError(t, err)
	const headers, data = 1, 0
	fields := "\x00\x00" + qpackLiteral(":method", "POST") + qpackLiteral(":scheme", "https") + qpackLiteral(":authority", "localhost") +
		qpackLiteral(":path", path) + qpackLiteral("content-type", "application/json") + qpackLiteral("authorization", testbed.BasicAuth(key+":"))
	_, err = io.WriteString(stream, h3Frame(headers, fields)+h3Frame(data, body))
	require.NoError(t, err)
	if all {
		require.NoError(t, stream.Close())
	}
}

// h3Frame returns a frame of HTTP/3 (RFC 9114, section 7.1).
func h3Frame(kind uint64, payload string) string {
	return string(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload)))) + payload
}

// qpackLiteral returns a header field without compression (RFC 9204, section 4.5.6). It differs
// from that of HPACK in the first byte and in its shorter prefix.
func qpackLiteral(name, value string) string {
	text := testbed.HTTP2Field("", value)[2:]
	if len(name) < 7 {
		return string([]byte{0x20 | byte(len(name))}) + name + text
	}
	return string([]byte{0x20 | 7, byte(len(name) - 7)}) + name + text
}

// A datagram can have a forged source address, and a replayed or forged one can carry early
// data. Such requests in the name of another client neither lock it out nor use up its limits.
func TestBlindEarlyDataCountsForNobody(t *testing.T) {
	t.Parallel()
	const limit = 10
	g, _ := startEarly(t, func(_ *testbed.Gateway, dsapp testbed.Object) {
		limits := dsapp["limits"].(testbed.Object)
		limits["failed_keys_per_minute"], limits["calls_per_minute"] = limit, limit
	})
	var s tlsSession
	s.begin(t, g)
	const each = 90 // a connection has 100 streams
	for _, attack := range []struct {
		key, path, body string
		all             bool
	}{
		{"no-such-front-end-key", testbed.LoginPath, testbed.LoginBody, true},
		{"", "/rest/v2/unknown", "", true},
		{testbed.FrontEndKey, testbed.LoginPath, testbed.LoginBody, true},
		{testbed.FrontEndKey, testbed.LoginPath, "{", false},
	} {
		c := dialQUIC(t, g, victim, &s, true)
		for range each {
			c.say(t, attack.path, attack.key, attack.body, attack.all)
		}
	}
	awaitTooEarly(t, g, victim, 4*each)
	owner := g.From(t, victim)
	for range limit {
		status, answer := owner.Call(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
		assert.Equal(t, http.StatusOK, status, answer)
	}
}

// The source range of a back-end key holds for early data, too: a forged address registers
// nothing.
func TestBlindEarlyDataRegistersNothing(t *testing.T) {
	t.Parallel()
	const farKey = "test-key-of-a-far-site"
	g, server := startEarly(t, func(_ *testbed.Gateway, dsapp testbed.Object) {
		dsapp["api_keys"] = append(dsapp["api_keys"].([]testbed.Object), testbed.Object{"name": "far-site", "class": "back_end", "key": farKey, "allow": []string{victim}})
	})
	var s tlsSession
	s.begin(t, g)
	c := dialQUIC(t, g, victim, &s, true)
	const requests = 20
	for range requests {
		c.say(t, testbed.RegisterPath, farKey, testbed.RegisterBody, true)
	}
	awaitTooEarly(t, g, victim, requests)
	assert.Zero(t, server.Calls("PROVISIONCMD_MDL_REGISTER"))

	status, answer := g.Call(t, testbed.RegisterPath, farKey, testbed.RegisterBody)
	assert.Equal(t, http.StatusForbidden, status, answer)
	status, answer = g.From(t, victim).Call(t, testbed.RegisterPath, farKey, testbed.RegisterBody)
	assert.Equal(t, http.StatusOK, status, answer)
	assert.Equal(t, 1, server.Calls("PROVISIONCMD_MDL_REGISTER"))
}

// Every request in early data gets the same answer, whatever it asks for. A client that repeats
// it after the handshake is served.
func TestEarlyDataIsRepeated(t *testing.T) {
	t.Parallel()
	const phone = "127.0.0.8"
	g, _ := startEarly(t, nil)
	var s tlsSession
	s.begin(t, g)
	c := dialQUIC(t, g, phone, &s, true)
	requests := []*http.Request{
		earlyRequest(t, g, http.MethodPost, testbed.ServerTimePath, testbed.FrontEndKey),
		earlyRequest(t, g, http.MethodGet, testbed.ServerTimePath, testbed.FrontEndKey),
		earlyRequest(t, g, http.MethodPost, testbed.ServerTimePath, "no-such-front-end-key"),
		earlyRequest(t, g, http.MethodPost, "/rest/auth/online", testbed.BackEndKey),
		earlyRequest(t, g, http.MethodPost, "/rest/v2/unknown", testbed.FrontEndKey),
		earlyRequest(t, g, http.MethodOptions, testbed.RegisterPath, ""),
	}
	streams := make([]*http3.RequestStream, len(requests))
	for i, r := range requests {
		streams[i] = c.ask(t, r)
	}
	// The handshake cannot end while the client is deaf.
	awaitTooEarly(t, g, phone, len(requests))
	c.deaf.Store(false)
	for i, stream := range streams {
		got := hear(t, stream)
		what := fmt.Sprintf("%s %s", requests[i].Method, requests[i].URL.Path)
		assert.Equal(t, "application/json", got.Header.Get("Content-Type"), what)
		testbed.Expect(http.StatusTooEarly, "STAT_INVPARAM", -2).Check(t, got)
		assert.Contains(t, got.Body, `"errorDescription":`, what)
	}
	<-c.HandshakeComplete()
	assert.True(t, c.ConnectionState().Used0RTT)
	assert.Equal(t, http.StatusOK, hear(t, c.ask(t, requests[0])).Status)
	assert.Equal(t, http.StatusUnauthorized, hear(t, c.ask(t, requests[2])).Status)
}

// A server that does not allow early data gets none, not even with the session of another
// server of the same process.
func TestEarlyDataSwitchedOff(t *testing.T) {
	t.Parallel()
	const phone = "127.0.0.8"
	var other testbed.Gateway
	g, _ := startEarly(t, func(g *testbed.Gateway, _ testbed.Object) {
		other = *g
		other.URL = "https://" + freeport.Address(t)
		allowing := maps.Clone(g.HTTPServer())
		allowing["listen"] = []string{strings.TrimPrefix(other.URL, "https://")}
		g.Config["apps"].(testbed.Object)["http"].(testbed.Object)["servers"].(testbed.Object)["allowing"] = allowing
		g.HTTPServer()["allow_0rtt"] = false
	})
	request := earlyRequest(t, g, http.MethodPost, testbed.ServerTimePath, testbed.FrontEndKey)

	var s tlsSession
	s.begin(t, g)
	c := dialQUIC(t, g, phone, &s, false)
	got := hear(t, c.ask(t, request))
	assert.Equal(t, http.StatusOK, got.Status, got.Body)
	assert.True(t, c.ConnectionState().TLS.DidResume)
	assert.False(t, c.ConnectionState().Used0RTT)

	var foreign tlsSession
	foreign.begin(t, &other)
	// The client is deaf until it has asked: only then is the request early data for certain.
	c = dialQUIC(t, g, phone, &foreign, true)
	c.ask(t, request)
	c.deaf.Store(false)
	<-c.HandshakeComplete()
	_, err := c.OpenStream()
	require.ErrorIs(t, err, quic.Err0RTTRejected)
	assert.False(t, c.ConnectionState().Used0RTT)
	poll.Until(t, "the log to tell", func() bool { return len(g.Accesses(t, phone)) == 1 })
}
