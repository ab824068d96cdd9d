package restapi

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

const registerPath = "/rest/v2/provisioning/DSAPPSRPRegister"

// A key may be quoted. Anything else that is no key is refused with a clear text, before the
// service is carried out.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("k", 64)
	for _, path := range []string{registerPath, "/rest/v2/provisioning/MdlRegister"} {
		for _, tt := range []struct {
			values []string
			want   form.IdempotencyKey
			wrong  string
		}{
			{nil, "", ""},
			{[]string{"0123456789.ab-_Z"}, "0123456789.ab-_Z", ""},
			{[]string{`"0123456789.ab-_Z"`}, "0123456789.ab-_Z", ""},
			{[]string{longest}, form.IdempotencyKey(longest), ""},
			{[]string{longest + "k"}, "", "must have 16 to 64 characters"},
			{[]string{"0123456789abcde"}, "", "must have 16 to 64 characters"},
			{[]string{""}, "", "must not be empty"},
			{[]string{`""`}, "", "must not be empty"},
			{[]string{`"0123456789abcdef`}, "", "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
			{[]string{`0123456789abcdef"`}, "", "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
			{[]string{`""0123456789abcdef""`}, "", "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
			{[]string{`"0123456789abcdef";a=1`}, "", "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
			{[]string{"0123456789abcdef, 0123456789abcdef"}, "", "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
			{[]string{"0123456789abcdé\xff"}, "", "must be valid UTF-8"},
			{[]string{"0123456789abcdef", "0123456789abcdef"}, "", "occurs twice"},
		} {
			h, ops := newHandler(t, nil)
			g := &testServer{t: t, handler: h}
			got := g.do(newRequest(path, backKey, bodies[path], func(r *http.Request) {
				for _, v := range tt.values {
					r.Header.Add("Idempotency-Key", v)
				}
			}))
			if tt.wrong != "" {
				wantFailure(t, got, V2, 400, "STAT_INVPARAM", -2, -1)
				if !strings.Contains(got.body, `"errorDescription":"Idempotency-Key `+tt.wrong+`"`) || ops.calls != 0 {
					t.Errorf("%q: answer %s, %d calls", tt.values, got.body, ops.calls)
				}
				continue
			}
			var body [sha256.Size]byte
			if tt.want != "" {
				body = sha256.Sum256([]byte(bodies[path]))
			}
			if got.status != http.StatusOK || ops.caller.IdempotencyKey != tt.want || ops.caller.Body != body {
				t.Errorf("%q: status %d, caller %+v", tt.values, got.status, ops.caller)
			}
		}
	}
}

// Other services ignore the header, whatever it has.
func TestIdempotencyKeyElsewhere(t *testing.T) {
	t.Parallel()
	for _, s := range Services() {
		if s.Keyed {
			continue
		}
		h, ops := newHandler(t, nil)
		g := &testServer{t: t, handler: h}
		for _, value := range []string{"0123456789abcdef", "?"} {
			got := g.do(newRequest(s.Path, keyFor(s), bodies[s.Path], func(r *http.Request) { r.Header.Set(KeyField, value) }))
			if got.status != http.StatusOK || ops.caller.IdempotencyKey != "" || ops.caller.Body != [sha256.Size]byte{} {
				t.Errorf("%s: status %d, caller %+v", s.Path, got.status, ops.caller)
			}
		}
	}
}

// A key that is in use is answered with 409 and Retry-After, one of another body with 422.
func TestIdempotencyKeyRefused(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	g.ops.err = &gateway.Failure{Kind: gateway.UnderWay, RetryAfter: 1, Err: errCause}
	got := g.call(registerPath, backKey, bodies[registerPath])
	wantFailure(t, got, V2, 409, "STAT_ERROR", -1, -1)
	if got.header.Get("Retry-After") != "1" || g.last().Outcome != UnderWay {
		t.Errorf("answer %+v, observed %+v", got, g.last())
	}
	g.ops.err = &gateway.Failure{Kind: gateway.KeyReused, Err: errCause}
	got = g.call(registerPath, backKey, bodies[registerPath])
	wantFailure(t, got, V2, 422, "STAT_INVPARAM", -2, -1)
	if got.header.Get("Retry-After") != "" || g.last().Outcome != KeyReused {
		t.Errorf("answer %+v, observed %+v", got, g.last())
	}
}
