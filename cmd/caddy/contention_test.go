package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

const (
	phoneAddress = "198.51.100.1"
	// strangers is how many other addresses there is room for beside the phone's.
	strangers = 3
)

func stranger(i int) string { return fmt.Sprintf("203.0.113.%d", i+1) }

// elsewhere sends requests as a proxy does for a client with an address. It lets
// before see each request first.
type elsewhere struct {
	http.RoundTripper

	address string
	before  func(*http.Request)
}

// RoundTrip implements http.RoundTripper.
func (e elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	e.before(r)
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", e.address)
	return e.RoundTripper.RoundTrip(r)
}

// behindProxy starts a gateway that believes what a proxy says about addresses.
func behindProxy(t *testing.T, store object) *gateway {
	t.Helper()
	certs := certificates(t)
	g := configure(t, certs, startOAS(t, certs).URL, func(dsapp object) {
		if store != nil {
			dsapp["store"] = store
		}
	})
	server := g.httpServer()
	server["trusted_proxies"] = object{"source": "static", "ranges": []string{"127.0.0.0/8", "::1/128"}}
	server["trusted_proxies_strict"] = 1
	g.Start(t)
	return g
}

// disturb makes first calls for an identifier from the strangers' addresses, all at
// once, and then wrong second calls, of which there may be one less than attempts.
// It returns what was answered, without the values that have to differ.
func (g *gateway) disturb(t *testing.T, identifier string) (first, second []string) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 4 * strangers {
		all.Go(func() {
			status, answer := g.callFrom(t, stranger(i%strangers), ephemeralKeyPath, strings.Replace(firstBody, "Unknown1", identifier, 1))
			var decoded struct {
				Result map[string]string `json:"result"`
			}
			if err := json.Unmarshal([]byte(answer), &decoded); err != nil {
				t.Error(err)
			}
			for name, value := range decoded.Result {
				answer = strings.Replace(answer, value, fmt.Sprintf("%s of %d", name, len(value)), 1)
			}
			mu.Lock()
			defer mu.Unlock()
			first = append(first, fmt.Sprint(status, answer))
		})
	}
	all.Wait()
	for i := range 2 {
		status, answer := g.callFrom(t, stranger(i), activationDataPath, strings.Replace(secondBody, "Unknown1", identifier, 1))
		second = append(second, fmt.Sprint(status, answer))
	}
	return first, second
}

// callFrom is Call for a client with an address. It may be used in goroutines.
func (g *gateway) callFrom(t *testing.T, address, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Forwarded-For", address)
	r.SetBasicAuth(frontEndKey, "")
	status, _, answer, err := g.Do(r)
	if err != nil {
		t.Error(err)
	}
	return status, answer
}

// contended are the lines of the audit log about contention for an identifier.
func (g *gateway) contended(t *testing.T, identifier string) []map[string]any {
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

// Whoever knows an identifier and floods its exchange from a few other addresses,
// first calls and what wrong second calls there may be, does not keep the phone from
// activating, and is named in the audit log, once a minute. With an identifier that
// nobody registered it gets the same answers, and is named as well.
func TestStrangersDoNotDisturb(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(t *testing.T) object{
		"embedded": func(*testing.T) object { return nil },
		"redis": func(t *testing.T) object {
			t.Helper()
			return object{"backend": "redis", "addresses": []string{redistest.Start(t).Addr()}, "timeout": "10s"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := behindProxy(t, store(t))
			start := time.Now()
			type answers struct{ first, second []string }
			flooded := map[string]answers{}
			// activate plays a phone whose exchange is flooded between its two calls.
			activate := func(identifier, password string) error {
				phone := &sandbox.Phone{BaseURL: g.URL, APIKey: frontEndKey, Client: &http.Client{Timeout: deadline}}
				phone.Client.Transport = elsewhere{g.client.Transport, phoneAddress, func(r *http.Request) {
					if r.URL.Path == activationDataPath {
						first, second := g.disturb(t, identifier)
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
				assert.Equal(t, "200"+refused, answer)
			}
			assert.Contains(t, flooded[registered.Identifier].first[0], "RET_SUCCESS")
			assert.ElementsMatch(t, flooded[registered.Identifier].first, flooded[unknown].first)
			assert.Equal(t, flooded[registered.Identifier].second, flooded[unknown].second)

			for identifier := range flooded {
				poll(t, "the log to tell", func() bool { return len(g.contended(t, identifier)) > 0 })
				lines := g.contended(t, identifier)
				assert.LessOrEqual(t, len(lines), 1+int(time.Since(start).Minutes()), identifier)
				for name, want := range map[string]any{
					"level": "warn", "logger": "dsapp.audit", "operation": "generate_ephemeral_key", "application": "mobile-app",
				} {
					assert.Equal(t, want, lines[0][name], name)
				}
				assert.Regexp(t, `^203\.0\.113\.[123]$`, lines[0]["client_ip"])
			}
			assert.NotContains(t, g.Logs.String(), "registration_burned")
		})
	}
}
