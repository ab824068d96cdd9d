package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// interrupted calls before with each request before it sends it.
type interrupted struct {
	http.RoundTripper

	before func(*http.Request)
}

// RoundTrip implements http.RoundTripper.
func (i interrupted) RoundTrip(r *http.Request) (*http.Response, error) {
	i.before(r)
	return i.RoundTripper.RoundTrip(r)
}

// disturb makes first calls for an identifier from other addresses at the same time, as many as
// there is room for beside that of the phone, and then wrong second calls, one less than the
// registration has attempts. It returns the answers without the values that must differ.
func disturb(t *testing.T, g *testbed.Gateway, identifier string) (first, second []string) {
	t.Helper()
	strangers := []*testbed.Gateway{g.From(t, "127.0.0.21"), g.From(t, "127.0.0.22"), g.From(t, "127.0.0.23")}
	call := func(stranger *testbed.Gateway, path, body string) string {
		status, answer, err := stranger.Try(t.Context(), path, testbed.FrontEndKey, strings.Replace(body, "Unknown1", identifier, 1))
		assert.NoError(t, err)
		var decoded struct {
			Result map[string]string `json:"result"`
		}
		assert.NoError(t, json.Unmarshal([]byte(answer), &decoded))
		for name, value := range decoded.Result {
			answer = strings.Replace(answer, value, fmt.Sprintf("%s of %d", name, len(value)), 1)
		}
		return fmt.Sprint(status, answer)
	}
	first = make([]string, 4*len(strangers))
	var all sync.WaitGroup
	for i := range first {
		all.Go(func() {
			first[i] = call(strangers[i%len(strangers)], testbed.EphemeralKeyPath, testbed.EphemeralKeyBody)
		})
	}
	all.Wait()
	for _, stranger := range strangers[:2] {
		second = append(second, call(stranger, testbed.ActivationDataPath, testbed.ActivationDataBody))
	}
	return first, second
}

// contentionEvents returns the events of the audit log about contention for an identifier.
func contentionEvents(t *testing.T, g *testbed.Gateway, identifier string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(g.Logs.String()) {
		if !strings.Contains(line, `"msg":"exchange_contended"`) {
			continue
		}
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		if entry["registration"] == identifier {
			found = append(found, entry)
		}
	}
	return found
}

// A stranger who knows an identifier and floods its exchange from a few other addresses, with
// first calls and as many wrong second calls as there may be, does not keep the phone from
// activating. The audit log names it, once a minute. For an unknown identifier it gets the same
// answers and is named, too.
func TestStrangersDoNotDisturb(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(t *testing.T) testbed.Object{
		"embedded": func(t *testing.T) testbed.Object {
			return testbed.Object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")}
		},
		"redis": func(t *testing.T) testbed.Object {
			return testbed.RedisStore(redistest.Start(t).Addr())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := testbed.Start(t, func(dsapp testbed.Object) { dsapp["store"] = store(t) })
			start := time.Now()
			type answers struct{ first, second []string }
			flooded := map[string]answers{}
			// activate completes an activation whose exchange is disturbed between its two
			// calls.
			activate := func(identifier, password string) error {
				phone := &sandbox.Phone{BaseURL: g.URL, APIKey: testbed.FrontEndKey, Client: &http.Client{Timeout: poll.Patience}}
				phone.Client.Transport = interrupted{g.Client.Transport, func(r *http.Request) {
					if r.URL.Path == testbed.ActivationDataPath {
						first, second := disturb(t, g, identifier)
						flooded[identifier] = answers{first, second}
					}
				}}
				_, err := phone.Activate(t.Context(), identifier, password)
				return err
			}
			registered := g.Register(t)
			const unknown = "Unknown1"
			require.NoError(t, activate(registered.Identifier, registered.Password))
			require.Error(t, activate(unknown, registered.Password))

			require.Len(t, flooded, 2)
			for _, answer := range flooded[registered.Identifier].second {
				assert.Equal(t, "200"+testbed.Refused, answer)
			}
			assert.Contains(t, flooded[registered.Identifier].first[0], "RET_SUCCESS")
			assert.ElementsMatch(t, flooded[registered.Identifier].first, flooded[unknown].first)
			assert.Equal(t, flooded[registered.Identifier].second, flooded[unknown].second)

			for identifier := range flooded {
				poll.Until(t, "the log to tell", func() bool { return len(contentionEvents(t, g, identifier)) > 0 })
				lines := contentionEvents(t, g, identifier)
				assert.LessOrEqual(t, len(lines), 1+int(time.Since(start).Minutes()), identifier)
				for name, want := range map[string]any{
					"level": "warn", "logger": "dsapp.audit", "operation": "generate_ephemeral_key", "application": "mobile-app",
				} {
					assert.Equal(t, want, lines[0][name], name)
				}
				assert.Regexp(t, `^127\.0\.0\.2[123]$`, lines[0]["client_ip"])
			}
			assert.NotContains(t, g.Logs.String(), "registration_burned")
		})
	}
}
