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

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// The transport has the settings that authentication servers need.
func TestTransport(t *testing.T) {
	t.Parallel()
	config, err := clientTLS(caddy.Context{Context: t.Context()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := newTransport(config, time.Second, 2*time.Second, 7*time.Second, 3)
	if transport.TLSClientConfig.MinVersion != tls.VersionTLS12 {
		t.Errorf("minimum TLS version %x", transport.TLSClientConfig.MinVersion)
	}
	if transport.Proxy != nil {
		t.Error("the transport follows proxy settings of the environment")
	}
	if transport.IdleConnTimeout != 7*time.Second {
		t.Errorf("idle timeout %v", transport.IdleConnTimeout)
	}
	if transport.MaxIdleConnsPerHost != 3 {
		t.Errorf("%d idle connections", transport.MaxIdleConnsPerHost)
	}
	if transport.Protocols.HTTP2() || !transport.Protocols.HTTP1() {
		t.Errorf("protocols %v", transport.Protocols)
	}
}

// The transport does not connect to a server below TLS 1.2 or without a trusted certificate.
func TestTransportRefuses(t *testing.T) {
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
			transport := newTransport(config, poll.Patience, poll.Patience, defaultIdleTimeout, 1)
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
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
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	if err := newProbe(newTransport(trusting.Clone(), poll.Patience, poll.Patience, defaultIdleTimeout, 1), address).run(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
	poll.Receive(t, "the connection to end", ended)
	if err := newProbe(newTransport(new(tls.Config), poll.Patience, poll.Patience, defaultIdleTimeout, 1), address).run(t.Context(), time.Millisecond); err == nil {
		t.Error("reached a server that is not trusted")
	}
	poll.Receive(t, "the connection to end", ended)

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	silentURL := &url.URL{Scheme: "https", Host: silent.Addr().String()}
	if err := newProbe(newTransport(trusting.Clone(), 20*time.Millisecond, poll.Patience, defaultIdleTimeout, 1), silentURL).run(t.Context(), time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
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
			address, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
			if err := newProbe(newTransport(trusting.Clone(), poll.Patience, poll.Patience, defaultIdleTimeout, 1), address).run(t.Context(), poll.Patience); err == nil {
				t.Error("reached a server that refuses the client")
			}
			trusting = trusting.Clone()
			trusting.Certificates = server.TLS.Certificates
			if err := newProbe(newTransport(trusting, poll.Patience, poll.Patience, defaultIdleTimeout, 1), address).run(t.Context(), time.Millisecond); err != nil {
				t.Error(err)
			}
		})
	}
}
