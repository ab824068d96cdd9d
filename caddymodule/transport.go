package caddymodule

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
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
)

// clientConfig returns the settings of the client of each instance, without its URL. It uses
// no proxy, and ignores the proxy variables of the environment. It does not limit the time
// for an answer: each call has its own timeout.
func (s *AuthenticationServers) clientConfig(ctx caddy.Context, maxConnections int) (httpclient.Config, error) {
	dialTimeout := cmp.Or(time.Duration(s.DialTimeout), defaultDialTimeout)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAliveInterval, Control: setUserTimeout}
	c := httpclient.Config{
		Dial:             dialer.DialContext,
		HandshakeTimeout: defaultHandshakeTimeout,
		IdleTimeout:      cmp.Or(time.Duration(s.IdleTimeout), defaultIdleTimeout),
		MaxIdle:          maxConnections,
	}
	if s.TLS != nil && s.TLS.HandshakeTimeout != 0 {
		c.HandshakeTimeout = time.Duration(s.TLS.HandshakeTimeout)
	}
	err := cmp.Or(
		option.Timeout("dial_timeout", dialTimeout),
		option.Timeout("idle_timeout", c.IdleTimeout),
		option.Timeout("tls.handshake_timeout", c.HandshakeTimeout),
	)
	if err != nil {
		return httpclient.Config{}, err
	}
	c.TLS, err = clientTLS(ctx, s.TLS)
	return c, err
}

// refusalTimeout is how long a probe waits after the handshake for the server to refuse
// the connection. With TLS 1.3, a server checks the client certificate only then.
const refusalTimeout = 250 * time.Millisecond

// probe connects with the settings of commands, waits for wait whether the server refuses the
// connection, and closes it.
func probe(ctx context.Context, c *httpclient.Client, wait time.Duration) error {
	connection, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	_, err = handshake(ctx, c, connection, wait)
	return err
}

// handshake secures a connection and waits for wait whether the server refuses it.
func handshake(ctx context.Context, c *httpclient.Client, connection net.Conn, wait time.Duration) (*tls.Conn, error) {
	client, err := c.Handshake(ctx, connection)
	if err != nil {
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
