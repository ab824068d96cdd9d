package caddymodule

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

const (
	// defaultIdleTimeout of a connection to an authentication server, which closes
	// its side after 90 s.
	defaultIdleTimeout = 60 * time.Second
	// acknowledgeTimeout ends a connection whose bytes nobody acknowledges, such as
	// one that a firewall forgot.
	acknowledgeTimeout = 2 * time.Second

	defaultHandshakeTimeout = 5 * time.Second
	keepAliveInterval       = 30 * time.Second
	maxResponseHeader       = 64 << 10
)

// newTransport returns a transport for one authentication server. It knows no
// proxies, follows no environment variables and speaks HTTP/1.1; how long an
// answer may take is up to each call.
func newTransport(clientTLS *tls.Config, handshakeTimeout, dialTimeout, idleTimeout time.Duration, maxConnections int) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAliveInterval, Control: endUnacknowledged}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        clientTLS,
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxIdleConns:           maxConnections,
		MaxIdleConnsPerHost:    maxConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		Protocols:              http1(),
	}
}

// firstWord is how long a probe waits for a server to refuse the connection after the
// handshake. With TLS 1.3 that is when it refuses a client certificate.
const firstWord = 250 * time.Millisecond

// newProbe returns a function that makes a connection like those of a transport
// and closes it. It must be called before the transport is used.
func newProbe(t *http.Transport, server *url.URL) func(context.Context) error {
	clientTLS := t.TLSClientConfig.Clone()
	clientTLS.ServerName = cmp.Or(clientTLS.ServerName, server.Hostname())
	address := net.JoinHostPort(server.Hostname(), cmp.Or(server.Port(), "443"))
	return func(ctx context.Context) error {
		connection, err := t.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer func() { _ = connection.Close() }()
		ctx, cancel := context.WithTimeout(ctx, t.TLSHandshakeTimeout)
		defer cancel()
		client := tls.Client(connection, clientTLS)
		if err := client.HandshakeContext(ctx); err != nil {
			return err
		}
		return refusal(client)
	}
}

// refusal is what a server says against a connection whose handshake ended just now,
// nil if it says nothing.
func refusal(c *tls.Conn) error {
	if c.ConnectionState().Version < tls.VersionTLS13 {
		return nil
	}
	if err := c.SetReadDeadline(time.Now().Add(firstWord)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// clientTLS returns the TLS settings of a client: those of t, and TLS 1.2 at
// least. t may be nil. The error is an *option.Error.
func clientTLS(ctx caddy.Context, t *reverseproxy.TLSConfig) (*tls.Config, error) {
	config := new(tls.Config)
	if t != nil {
		if len(t.ExceptPorts) > 0 {
			return nil, option.Errorf("tls.except_ports", "has no meaning here")
		}
		if t.ClientCertificateAutomate != "" {
			return nil, option.Errorf("tls.client_certificate_automate", "is not supported, use client_certificate_file and client_certificate_key_file")
		}
		made, err := t.MakeTLSClientConfig(ctx)
		if err != nil {
			return nil, option.In("tls", err)
		}
		if made != nil { // nil stands for Go's defaults
			config = made
		}
	}
	if config.RootCAs != nil && config.RootCAs.Equal(x509.NewCertPool()) {
		return nil, option.Errorf("tls.ca", "holds no certificate; name files in PEM form, which begin with -----BEGIN CERTIFICATE-----")
	}
	config.MinVersion = tls.VersionTLS12
	return config, nil
}
