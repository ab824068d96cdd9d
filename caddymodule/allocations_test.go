package caddymodule

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
)

// cannedServer answers every command with the same text. Like http.Transport, it reads the
// command before it answers.
type cannedServer struct{ answer string }

func (s cannedServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: soapHeader, Body: io.NopCloser(strings.NewReader(s.answer))}, r.Body.Close()
}

var soapHeader = http.Header{"Content-Type": {"text/xml; charset=utf-8"}}

// discardedAnswer is an answer to a client that nobody reads.
type discardedAnswer struct {
	header http.Header
	status int
}

func (w *discardedAnswer) Header() http.Header             { return w.header }
func (w *discardedAnswer) Write(b []byte) (int, error)     { return len(b), nil }
func (w *discardedAnswer) WriteHeader(status int)          { w.status = status }
func (w *discardedAnswer) SetReadDeadline(time.Time) error { return nil }

// What this module and the library allocate for a one-time password that is forwarded has a
// limit. What net/http allocates to send the command and Caddy to make the ID of the request
// is measured by itself and not counted. What they call in the standard library is. The race
// detector adds a few, because pools forget at random then.
func TestAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun does not allow it
	const most, runs = 53, 100
	attribute := func(id, value string) string {
		return `<attributes><attributeID>` + id + `</attributeID><value>` + value + `</value></attributes>`
	}
	c := gatewayConfig(t)
	c["limits"] = object{"calls_per_minute": 1_000_000}
	h := provisioned(t, c)
	transport := h.app.AuthenticationServers.transports[0]
	transport.RegisterProtocol("https", cannedServer{
		`<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><authUserResponse>` + soapanswer.Success +
			`<resultAttribute>` + attribute("CREDFLD_USERID", "jane.doe") + attribute("CREDFLD_DOMAIN", "mydomain.com") + attribute("CREDFLD_ORGANIZATIONAL_UNIT", "people") +
			attribute("CREDFLD_SERIAL_NO", "VDS1000000-1") + `</resultAttribute></authUserResponse></e:Body></e:Envelope>`,
	})
	const body = `{"userID":"jane.doe","domain":"mydomain.com","password":"123456"}`
	requests := make([]*http.Request, 2*(runs+1)) // AllocsPerRun calls once more
	for i := range requests {
		requests[i] = request("/rest/v2/authentication/authUser", testFrontEndKey, "192.0.2.1")
		requests[i].Body, requests[i].ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	each := func(do func(*http.Request)) float64 {
		return testing.AllocsPerRun(runs, func() {
			do(requests[0])
			requests = requests[1:]
		})
	}
	w := &discardedAnswer{header: http.Header{}}
	all := each(func(r *http.Request) {
		clear(w.header)
		require.NoError(t, h.ServeHTTP(w, r, unreachable))
		require.Equal(t, http.StatusOK, w.status)
	})
	// The command has another text, which makes no difference.
	command := &http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: "localhost"}, Header: soapHeader}
	others := each(func(r *http.Request) {
		command.Body = r.Body
		answer, err := transport.RoundTrip(command)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		_, found := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.request.uuid")
		require.True(t, found)
	})
	t.Logf("%.0f allocations, of which %.0f are not counted", all, others)
	assert.LessOrEqual(t, all-others, float64(most))
}
