package restapi

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
)

// The connection is closed after the answer to a request with a transfer coding, whether
// the Handler or the next handler answers: the request may have had a Content-Length, too,
// by which a proxy delimited it.
func TestTransferCodingEndsTheConnection(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = h.Serve(w, r, func(w http.ResponseWriter, r *http.Request) (bool, error) {
				_, err := io.Copy(w, r.Body)
				return true, err
			})
		}
	})
	body := bodies[activatePath]
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for path, fields := range map[string][]string{
		activatePath:                {"Transfer-Encoding: chunked"},
		activatePath + "?":          {"Transfer-Encoding: chunked", fmt.Sprintf("Content-Length: %d", len(chunked))},
		activatePath + "?expecting": {"Transfer-Encoding: chunked", "Expect: 100-continue"},
		"/elsewhere":                {"Transfer-Encoding: chunked", "Content-Length: 3"},
	} {
		conn, r := g.dial()
		g.write(conn, headerText(path, frontKey, fields...)+chunked)
		got := g.receive(r)
		if got.status == http.StatusContinue {
			got = g.receive(r)
		}
		if got.status != http.StatusOK || got.header.Get("Connection") != "close" {
			t.Errorf("%s: answer is %+v", path, got)
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
			t.Errorf("%s: after the answer came %q, %v", path, rest, err)
		}
	}
}

// A request in early data is refused before its key and address are looked at, and counts
// towards no limit.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	var failed, called fakeLimiter
	var observed Observation
	h, ops := newHandler(t, func(c *Config) {
		c.Limits = Limits{FailedKeys: &failed, Calls: &called, Registrations: &called, RequestsInFlight: fullLimiter{}}
		c.Authenticated = func(*http.Request, apikey.Key) { t.Error("a key was looked at") }
		c.ClientIP = func(*http.Request) netip.Addr { t.Error("an address was looked at"); return netip.Addr{} }
		c.Observe = func(_ *http.Request, o Observation) { observed = o }
	})
	for _, path := range []string{activatePath, "/rest/v2/provisioning/MdlRegister", "/rest/auth/online", "/elsewhere", activatePath + "/"} {
		for i, key := range []string{"", frontKey, backKey, "EXAMPLE-WRONG-KEY"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(bodies[path]))
			r.SetBasicAuth(key, "")
			r.TLS = &tls.ConnectionState{HandshakeComplete: i%2 == 1}
			if i%2 == 1 {
				// The field is set by a proxy that terminates TLS.
				r.Header["Early-Data"] = []string{"0", "1"}[i/2:]
			}
			w := httptest.NewRecorder()
			_ = h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) {
				t.Errorf("%s was passed on", path)
				return true, nil
			})
			a := readAnswer(t, versionOf(path), w.Body.Bytes())
			if w.Code != http.StatusTooEarly || a.status != "STAT_INVPARAM" || a.description != "not accepted before the TLS handshake is complete" {
				t.Errorf("%s: answer is %d %s", path, w.Code, w.Body)
			}
			if observed.Outcome != TooEarly || observed.Application != "" {
				t.Errorf("observed %+v", observed)
			}
		}
	}
	if ops.calls+len(failed.counted)+len(failed.blocking)+len(called.counted) != 0 {
		t.Error("something was called or counted")
	}
}
