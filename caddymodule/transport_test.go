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
)

// Settings that the authentication servers depend on.
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

// A server below TLS 1.2 or without a trusted certificate is not talked to.
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
			transport := newTransport(config, time.Second, time.Second, defaultIdleTimeout, 1)
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

// A probe tells whether a command would find a server that it can trust, and
// leaves no connection behind.
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
	if err := newProbe(newTransport(trusting.Clone(), time.Second, time.Second, defaultIdleTimeout, 1), address)(t.Context()); err != nil {
		t.Error(err)
	}
	<-ended
	if err := newProbe(newTransport(new(tls.Config), time.Second, time.Second, defaultIdleTimeout, 1), address)(t.Context()); err == nil {
		t.Error("reached a server that is not trusted")
	}
	<-ended

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dumb := &url.URL{Scheme: "https", Host: silent.Addr().String()}
	if err := newProbe(newTransport(trusting.Clone(), 20*time.Millisecond, time.Second, defaultIdleTimeout, 1), dumb)(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that does not speak: %v", err)
	}
}

// A server that refuses the client's certificate, which with TLS 1.3 it does after the
// handshake, is not reached: no command would be.
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
			if err := newProbe(newTransport(trusting.Clone(), time.Second, time.Second, defaultIdleTimeout, 1), address)(t.Context()); err == nil {
				t.Error("reached a server that refuses the client")
			}
			trusting = trusting.Clone()
			trusting.Certificates = server.TLS.Certificates
			if err := newProbe(newTransport(trusting, time.Second, time.Second, defaultIdleTimeout, 1), address)(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
