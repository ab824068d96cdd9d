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
	// defaultIdleTimeout is shorter than the 90 s after which an authentication server
	// closes idle connections.
	defaultIdleTimeout = 60 * time.Second
	// userTimeout is how long sent bytes may stay unacknowledged before the kernel ends
	// the connection, for example because a firewall has dropped its state.
	userTimeout = 2 * time.Second

	defaultHandshakeTimeout = 5 * time.Second
	keepAliveInterval       = 30 * time.Second
	maxResponseHeader       = 64 << 10
)

// newTransport returns a transport for one authentication server. It uses HTTP/1.1 and no
// proxy, and ignores the proxy variables of the environment. It does not limit the time
// for an answer: each call has its own timeout.
func newTransport(clientTLS *tls.Config, handshakeTimeout, dialTimeout, idleTimeout time.Duration, maxConnections int) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAliveInterval, Control: setUserTimeout}
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

// refusalTimeout is how long a probe waits after the handshake for the server to refuse
// the connection. With TLS 1.3, a server checks the client certificate only then.
const refusalTimeout = 250 * time.Millisecond

// probe makes connections with the settings of a transport.
type probe struct {
	transport *http.Transport
	tls       *tls.Config
	address   string
}

// newProbe returns a probe of a server. It must be called before the transport is used.
func newProbe(t *http.Transport, server *url.URL) probe {
	p := probe{t, t.TLSClientConfig.Clone(), net.JoinHostPort(server.Hostname(), cmp.Or(server.Port(), "443"))}
	p.tls.ServerName = cmp.Or(p.tls.ServerName, server.Hostname())
	return p
}

// run connects, waits for wait whether the server refuses the connection, and closes it.
func (p probe) run(ctx context.Context, wait time.Duration) error {
	connection, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	_, err = p.handshake(ctx, connection, wait)
	return err
}

func (p probe) connect(ctx context.Context) (net.Conn, error) {
	return p.transport.DialContext(ctx, "tcp", p.address)
}

// handshake secures a connection and waits for wait whether the server refuses it.
func (p probe) handshake(ctx context.Context, connection net.Conn, wait time.Duration) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.transport.TLSHandshakeTimeout)
	defer cancel()
	client := tls.Client(connection, p.tls)
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return client, readRefusal(client, wait)
}

// readRefusal returns the error with which a server refuses a connection after the
// handshake, or nil if it does not within wait. With TLS 1.2 the handshake itself fails.
func readRefusal(c *tls.Conn, wait time.Duration) error {
	if c.ConnectionState().Version < tls.VersionTLS13 {
		return nil
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
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

// clientTLS returns the TLS settings of t, or Go's defaults if t is nil. The minimum
// version is TLS 1.2. Errors are of type *option.Error.
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
		if made != nil { // nil means Go's defaults
			config = made
		}
	}
	if config.RootCAs != nil && config.RootCAs.Equal(x509.NewCertPool()) {
		return nil, option.Errorf("tls.ca", "holds no certificate; name files in PEM form, which begin with -----BEGIN CERTIFICATE-----")
	}
	config.MinVersion = tls.VersionTLS12
	return config, nil
}
