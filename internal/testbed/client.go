//go:build linux

package testbed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// NewClient returns a client that trusts the certificates in a PEM file. The name that it
// expects of servers is that of the URL if name is empty.
func NewClient(t testing.TB, authority, name string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(authority)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
		Timeout: poll.Patience,
	}
}

// BasicAuth returns the value of an Authorization header.
func BasicAuth(userInfo string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userInfo))
}

// Call posts a body and returns the status and the body of the answer.
func (g *Gateway) Call(t testing.TB, path, key, body string) (int, string) {
	t.Helper()
	status, answer, err := g.Try(t.Context(), path, key, body)
	require.NoError(t, err)
	return status, answer
}

// Answer returns the answer to a call, together with the status unless that is 200.
func Answer(status int, answer string) string {
	if status != http.StatusOK {
		return fmt.Sprintf("%d %s", status, answer)
	}
	return answer
}

// Try is Call for a request that may fail. An empty key means none.
func (g *Gateway) Try(ctx context.Context, path, key, body string) (int, string, error) {
	got, err := g.TryPost(ctx, path, key, body)
	return got.Status, got.Body, err
}

// Do sends a request.
func (g *Gateway) Do(r *http.Request) (Reply, error) {
	began := time.Now()
	resp, err := g.Client.Do(r)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Took: time.Since(began)}, err
}

// TryPost is Post for a request that may fail. An empty key means none.
func (g *Gateway) TryPost(ctx context.Context, path, key, body string) (Reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, strings.NewReader(body))
	if err != nil {
		return Reply{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.SetBasicAuth(key, "")
	}
	return g.Do(r)
}

// From returns the gateway with a client at another address of this machine.
func (g *Gateway) From(t *testing.T, address string) *Gateway {
	t.Helper()
	other := *g
	transport := g.transport().Clone()
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	t.Cleanup(transport.CloseIdleConnections)
	other.Client = &http.Client{Transport: contract{transport}, Timeout: poll.Patience}
	return &other
}

// Watched returns a client that compares the answers of services with their description. The
// tests fail if they differ.
func Watched(c *http.Client) *http.Client {
	watched := *c
	watched.Transport = contract{c.Transport.(*http.Transport)}
	return &watched
}

// transport returns the transport of the client without what compares the answers.
func (g *Gateway) transport() *http.Transport {
	if c, ok := g.Client.Transport.(contract); ok {
		return c.Transport
	}
	return g.Client.Transport.(*http.Transport)
}

// TLS returns a copy of the client's TLS configuration.
func (g *Gateway) TLS() *tls.Config { return g.transport().TLSClientConfig.Clone() }

// Post posts a body and returns the answer.
func (g *Gateway) Post(t *testing.T, path, key, body string) Reply {
	t.Helper()
	got, err := g.TryPost(t.Context(), path, key, body)
	require.NoError(t, err)
	return got
}

// Serves checks that clients at another address are served.
func (g *Gateway) Serves(t *testing.T) {
	t.Helper()
	other := g.From(t, "127.0.0.77")
	for range 5 {
		status, answer := other.Call(t, ServerTimePath, FrontEndKey, "")
		assert.Equal(t, http.StatusOK, status, answer)
	}
}

// Reply is an answer.
type Reply struct {
	Status int
	Header http.Header
	Body   string
	Last   bool          // of its connection; set by Wire.Hear only
	Took   time.Duration // not set by Wire.Hear
}

// RetryAfter returns after how many seconds the client is to come back. It fails the test if
// the answer does not say so.
func (r Reply) RetryAfter(t *testing.T) int {
	t.Helper()
	seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
	require.NoError(t, err, "Retry-After of status %d", r.Status)
	require.Positive(t, seconds, "Retry-After")
	return seconds
}

// Expectation is what an answer says: the HTTP status, and the name and number of the status
// code.
type Expectation struct {
	Status int
	Enum   string
	Code   int
}

// Expect returns an expectation.
func Expect(status int, enum string, code int) Expectation { return Expectation{status, enum, code} }

// Check compares an answer, of either version of the services, with what is expected.
func (e Expectation) Check(t *testing.T, got Reply) {
	t.Helper()
	assert.Equal(t, e.Status, got.Status, got.Body)
	var decoded struct {
		ResultCodes *struct {
			ReturnCodeEnum, StatusCodeEnum string
			ReturnCode, StatusCode         int
		}
		Result       json.RawMessage
		ErrorCode    *int
		ErrorMessage string
	}
	require.NoError(t, json.Unmarshal([]byte(got.Body), &decoded), got.Body)
	if decoded.ResultCodes == nil {
		require.NotNil(t, decoded.ErrorCode, got.Body)
		assert.Equal(t, e.Enum, decoded.ErrorMessage)
		if e.Enum == "STAT_SUCCESS" {
			assert.Zero(t, *decoded.ErrorCode)
		} else {
			assert.Equal(t, -1, *decoded.ErrorCode)
		}
		return
	}
	assert.Equal(t, e.Enum, decoded.ResultCodes.StatusCodeEnum)
	assert.Equal(t, e.Code, decoded.ResultCodes.StatusCode)
	if e.Enum == "STAT_SUCCESS" {
		assert.Equal(t, "RET_SUCCESS", decoded.ResultCodes.ReturnCodeEnum)
		assert.Zero(t, decoded.ResultCodes.ReturnCode)
		return
	}
	assert.Equal(t, "RET_FAILURE", decoded.ResultCodes.ReturnCodeEnum)
	assert.Equal(t, -1, decoded.ResultCodes.ReturnCode)
	assert.Empty(t, decoded.Result, "a failure has no result")
}
