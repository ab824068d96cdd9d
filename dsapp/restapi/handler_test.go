package restapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// New refuses an invalid configuration.
func TestNew(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"operations":             {Keys: testKeys(t)},
		"keys":                   {Operations: &fakeOperations{}},
		"max_body_size: must be": {Operations: &fakeOperations{}, Keys: testKeys(t), MaxBodySize: -1},
		"body_timeout: must be":  {Operations: &fakeOperations{}, Keys: testKeys(t), BodyTimeout: -1},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// A key with a source range is accepted from addresses in that range only, including
// IPv4-mapped addresses, and not from an unknown address.
func TestClientIP(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]int{"192.0.2.7": 200, "::ffff:192.0.2.7": 200, "198.51.100.1": 403, "": 403} {
		g := newTestServer(t, func(c *Config) {
			c.ClientIP = func(*http.Request) netip.Addr {
				a, _ := netip.ParseAddr(address)
				return a
			}
		}, nil)
		const path = "/rest/v2/provisioning/MdlRegister"
		if got := g.call(path, farKey, bodies[path]); got.status != want {
			t.Errorf("from %q: status is %d, want %d", address, got.status, want)
		}
	}
}

// No key is accepted if the address of the connection is not known.
func TestUnknownClientAddress(t *testing.T) {
	t.Parallel()
	h, ops := newHandler(t, func(c *Config) { c.ClientIP = nil })
	for _, address := range []string{"", "@", "example.com:443", "127.0.0.1", "[::1"} {
		r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/getServerTime", nil)
		r.SetBasicAuth(frontKey, "")
		r.RemoteAddr = address
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || ops.calls != 0 {
			t.Errorf("%q: status is %d, operation called %d times", address, w.Code, ops.calls)
		}
	}
}

// The Observation has the status that is concealed from the client.
func TestConcealedStatusIsObserved(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	g.ops.err = &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000), Concealed: "STAT_USER_UNKNOWN"}
	got := g.call("/rest/auth/online", frontKey, bodies["/rest/auth/online"])
	if got.status != http.StatusOK || got.body != `{"errorCode":-1,"errorMessage":"STAT_INVCREDENTIALS"}` || g.last().Status != "STAT_USER_UNKNOWN" {
		t.Errorf("answer is %+v, observed %+v", got, g.last())
	}
}

// A status of an authentication server that has not the form of a status name is relayed,
// but is not in the Observation.
func TestObservedStatusIsBounded(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"STAT_LOCKED": "STAT_LOCKED", "stat": "", "STAT LOCKED": "", strings.Repeat("S", 65): "", "": "",
	} {
		g := newTestServer(t, nil, nil)
		g.ops.err = &gateway.Refusal{Codes: failure(name, 1)}
		got := g.call("/rest/v2/provisioning/getServerTime", frontKey, "")
		if g.last().Status != want || !strings.Contains(got.body, `"statusCodeEnum":"`+name+`"`) {
			t.Errorf("%q: observed %q, answered %s", name, g.last().Status, got.body)
		}
	}
}

// A panic is answered with 500. Its value is neither in the answer nor in the log.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/rest/v2/provisioning/MdlActivate", "/rest/activation/MdlActivate"} {
		g := newTestServer(t, nil, nil)
		g.ops.panic = fmt.Errorf("value %q", "1234567890123456")
		got := g.call(path, frontKey, bodies[path])
		wantFailure(t, got, versionOf(path), 500, "STAT_ERROR", -1, -1)
		if g.last().Outcome != Internal {
			t.Errorf("observed %+v", g.last())
		}
		if log := g.log.String(); !strings.Contains(log, "type=*errors.errorString") || !strings.Contains(log, "fakeOperations).Activate") || strings.Contains(log, "1234567890123456") {
			t.Errorf("log is %s", log)
		}
	}
}

// http.ErrAbortHandler reaches net/http, which ends the connection without an answer.
func TestAbort(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	g.ops.panic = http.ErrAbortHandler
	if _, aborted := g.tryDo(newRequest(timePath, frontKey, "")); !aborted {
		t.Error("no panic")
	}
}

func BenchmarkServe(b *testing.B) {
	h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(b)})
	if err != nil {
		b.Fatal(err)
	}
	const path = "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey"
	body := []byte(`{"registrationIdentifier":"e3wfISG9","clientEphemeralPublicKey":"` + strings.Repeat("0F", 256) + `"}`)
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.SetBasicAuth(frontKey, "")
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
