package caddymodule

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// The client has the settings that authentication servers need.
func TestClientConfig(t *testing.T) {
	t.Parallel()
	for _, test := range []*struct {
		servers         AuthenticationServers
		idle, handshake time.Duration
	}{
		{AuthenticationServers{}, defaultIdleTimeout, defaultHandshakeTimeout},
		{
			AuthenticationServers{IdleTimeout: caddy.Duration(7 * time.Second), TLS: &reverseproxy.TLSConfig{HandshakeTimeout: caddy.Duration(time.Second)}},
			7 * time.Second, time.Second,
		},
	} {
		c, err := test.servers.clientConfig(caddy.Context{Context: t.Context()}, 3)
		if err != nil {
			t.Fatal(err)
		}
		if c.TLS.MinVersion != tls.VersionTLS12 {
			t.Errorf("minimum TLS version %x", c.TLS.MinVersion)
		}
		if c.IdleTimeout != test.idle || c.HandshakeTimeout != test.handshake || c.MaxIdle != 3 {
			t.Errorf("%v, %v and %d idle connections", c.IdleTimeout, c.HandshakeTimeout, c.MaxIdle)
		}
	}
}

// testClient returns a client for a server of httptest.
func testClient(t *testing.T, address string, config *tls.Config) *httpclient.Client {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c := httpclient.New(httpclient.Config{
		URL: u, TLS: config, Dial: new(net.Dialer).DialContext, HandshakeTimeout: poll.Patience, IdleTimeout: poll.Patience, MaxIdle: 1,
	})
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// The client does not connect to a server below TLS 1.2 or without a trusted certificate.
func TestClientRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		version  uint16
		trusted  bool
		accepted bool
	}{
		{"TLS 1.2 and trusted", tls.VersionTLS12, true, true},
		{"TLS 1.2 and not trusted", tls.VersionTLS12, false, false},
		{"TLS 1.1 and trusted", tls.VersionTLS11, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{MaxVersion: tt.version, MinVersion: tls.VersionTLS10}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()

			config, err := clientTLS(caddy.Context{Context: t.Context()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.trusted {
				config.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			}
			resp, err := testClient(t, server.URL, config).Post(t.Context(), nil, nil)
			if err == nil {
				resp.Body.Close()
			}
			if tt.accepted != (err == nil) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// A probe succeeds if a command would reach a trusted server. It leaves no connection open.
func TestProbe(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			ended <- struct{}{}
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	if err := probe(t.Context(), testClient(t, server.URL, trusting), time.Millisecond); err != nil {
		t.Error(err)
	}
	poll.Receive(t, "the connection to end", ended)
	if err := probe(t.Context(), testClient(t, server.URL, new(tls.Config)), time.Millisecond); err == nil {
		t.Error("reached a server that is not trusted")
	}
	poll.Receive(t, "the connection to end", ended)

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	client := httpclient.New(httpclient.Config{
		URL: &url.URL{Scheme: "https", Host: silent.Addr().String()}, TLS: trusting, Dial: new(net.Dialer).DialContext, HandshakeTimeout: 20 * time.Millisecond,
	})
	if err := probe(t.Context(), client, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that does not answer: %v", err)
	}
}

// A probe fails if the server refuses the client certificate, as a command would. With TLS
// 1.3 the server refuses it after the handshake.
func TestProbeWithRefusedCertificate(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{MinVersion: version, MaxVersion: version, ClientAuth: tls.RequireAnyClientCert}
			server.StartTLS()
			t.Cleanup(server.Close)
			trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
			if err := probe(t.Context(), testClient(t, server.URL, trusting), poll.Patience); err == nil {
				t.Error("reached a server that refuses the client")
			}
			trusting = trusting.Clone()
			trusting.Certificates = server.TLS.Certificates
			if err := probe(t.Context(), testClient(t, server.URL, trusting), time.Millisecond); err != nil {
				t.Error(err)
			}
		})
	}
}
