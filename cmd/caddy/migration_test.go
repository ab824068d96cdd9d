package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/docblocks"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const migration = "../../docs/migration.md"

// legacyService is a row of the table "Service by service".
type legacyService struct {
	path, key string
	behind    bool
}

func legacyServices(t *testing.T) (services []legacyService) {
	t.Helper()
	text, err := os.ReadFile(migration)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| `(/[^`]+)` \\| ([a-z-]+) \\| (here|behind)").FindAllStringSubmatch(string(text), -1) {
		services = append(services, legacyService{m[1], m[2], m[3] == "behind"})
	}
	return services
}

// The document has the 46 services of the old gateway, and says "here" for those that the gateway
// has, which are all but its own two.
func TestMigrationServices(t *testing.T) {
	t.Parallel()
	var here []string
	services := legacyServices(t)
	for _, s := range services {
		if !s.behind {
			here = append(here, s.path)
		}
	}
	assert.Len(t, services, 46)
	own := slices.DeleteFunc(slices.Clone(servicePaths), func(path string) bool {
		return strings.HasSuffix(path, "/DSAPPSRPRegister") || strings.HasSuffix(path, "/DSAPPSRPActivate")
	})
	slices.Sort(here)
	assert.Equal(t, own, here)
}

// oldGateway stands for the old gateway: it tells what arrived.
type oldGateway struct {
	*httptest.Server
	mu   sync.Mutex
	last passed
	all  int
}

const fromOld = "answer of the old gateway"

func startOldGateway(t *testing.T, certs sandbox.Certificates) *oldGateway {
	t.Helper()
	o := new(oldGateway)
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last = passed{r.RequestURI, r.Header.Get("Authorization"), string(body)}
		o.all++
		fmt.Fprint(w, fromOld)
	}))
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

// take returns what arrived last, and forgets it.
func (o *oldGateway) take() passed {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.last
	o.last = passed{}
	return p
}

// sideBySide starts the gateway of the chapter "Side by side", with the keys of the tests. The
// loopback address is inside, and others of this machine are not.
func sideBySide(t *testing.T, certs sandbox.Certificates, server, old string) *testbed.Gateway {
	t.Helper()
	dir := exampleFiles(t)
	authority, err := os.ReadFile(certs.Authority)
	require.NoError(t, err)
	for _, name := range []string{"oas-ca.pem", "old-gateway.pem"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), authority, 0o600))
	}
	e := writeExample(t, docblocks.Find(t, migration, "Side by side", "caddyfile"), "Caddyfile", dir, server,
		"https://oas1.example.com:8888/", server, "https://oas2.example.com:8888/", "https://localhost:1/",
		"https://old-gateway.example.com:11080", old, "10.0.0.0/8", "127.0.0.1")
	e.run(t)
	return e.Gateway
}

// The configuration of the chapter "Side by side": the services that the gateway has are its own,
// those of the old gateway reach it unchanged, with the keys of the field, and nothing else does.
func TestMigrationSideBySide(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	old := startOldGateway(t, certs)
	g := sideBySide(t, certs, server.URL, old.URL)
	stranger := g.From(t, "127.0.0.77")
	keys := map[string]string{"front-end": testbed.FrontEndKey, "back-end": testbed.BackEndKey, "either": testbed.BackEndKey, "none": ""}
	for _, s := range legacyServices(t) {
		const body = `{"some": "members"}`
		target := s.path
		if s.key == "none" {
			target += "?UserID=jane.doe&StaticPassword=x"
		}
		status, answer := g.Call(t, target, keys[s.key], body)
		got := old.take()
		if !s.behind {
			assert.Equal(t, passed{}, got, "%s reached the old gateway", s.path)
			assert.NotEqual(t, http.StatusNotFound, status, s.path)
			continue
		}
		assert.Equal(t, http.StatusOK, status, "%s: %s", s.path, answer)
		assert.Equal(t, fromOld, answer, s.path)
		want := passed{target, "", body}
		if s.key != "none" {
			want.authorization = testbed.BasicAuth(keys[s.key] + ":")
		}
		assert.Equal(t, want, got)

		refused := http.StatusUnauthorized
		from := g
		if s.key == "none" {
			refused, from = http.StatusForbidden, stranger
		}
		status, answer = from.Call(t, s.path, "", body)
		assert.Equal(t, refused, status, "%s: %s", s.path, answer)
		assert.Equal(t, passed{}, old.take(), s.path)
	}
	for _, path := range []string{
		"/rest/v2/provisioning/unknown", "/rest/v2/provisioning/DSAPPRegister/more", "/register;a=b", "/other", "/rest;a=b/v2/provisioning/getServerTime",
		"/rest/v2/provisioning//getServerTime",
	} {
		status, answer := g.Call(t, path, testbed.FrontEndKey, "{}")
		assert.Equal(t, http.StatusNotFound, status, "%s: %s", path, answer)
		assert.Equal(t, passed{}, old.take(), path)
	}
	g.ActivatedDevice(t)
}

// balancer starts the balancer of the chapter "Moving traffic" in front of two gateways.
func balancer(t *testing.T, certs sandbox.Certificates, old, fresh, weights string) *testbed.Gateway {
	t.Helper()
	dir := exampleFiles(t)
	authority, err := os.ReadFile(certs.Authority)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gateways.pem"), authority, 0o600))
	text := "{\n\tadmin unix//run/caddy/admin.sock|0200\n\tauto_https off\n}\n" + docblocks.Find(t, migration, "Moving traffic", "caddyfile")
	text = strings.Replace(text, "gateway.example.com {", ":11080 {\n\ttls /etc/dsapp/tls.pem /etc/dsapp/tls.key", 1)
	e := writeExample(t, text, "Caddyfile", dir, "",
		"https://old-gateway.example.com:11080", old, "https://new-gateway.example.com:11080", fresh, "robin 9 1", "robin "+weights)
	process := testbed.Program(e.env, e.Logs, "run", "--config", e.path)
	require.NoError(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Logf("log of the balancer:\n%s", e.Logs)
		}
	})
	poll.Until(t, "the balancer to serve", func() bool {
		status, _, err := e.Try(t.Context(), testbed.ServerTimePath, testbed.FrontEndKey, "")
		return err == nil && status == http.StatusOK
	})
	return e.Gateway
}

// The balancer of the chapter "Moving traffic" shares the calls as its weights say. In the middle of
// an activation, a login or a signature, calls can go to either gateway. Here the old gateway is
// another one that keeps nothing which the new one knows.
func TestMigrationByWeight(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	relay := func(dsapp testbed.Object) { dsapp["activation"] = testbed.Object{"exchange": "relay"} }
	a, b := testbed.StartGateway(t, certs, server.URL, relay), testbed.StartGateway(t, certs, server.URL, relay)

	t.Run("weights", func(t *testing.T) {
		t.Parallel()
		old := startOldGateway(t, certs)
		front := balancer(t, certs, old.URL, b.URL, "9 1")
		atOld := 0
		for range 50 {
			if _, answer := front.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, ""); answer == fromOld {
				atOld++
			}
		}
		assert.Equal(t, 45, atOld)
	})
	t.Run("flows", func(t *testing.T) {
		t.Parallel()
		front := balancer(t, certs, a.URL, b.URL, "1 1")
		device := front.ActivatedDevice(t)
		// An odd number of calls, so that another gateway begins the next activation.
		front.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
		front.ActivatedDevice(t)
		for _, kind := range testbed.RequestKinds {
			for _, retriever := range []*testbed.Gateway{a, b} {
				other := a
				if retriever == a {
					other = b
				}
				key, outcome := testbed.Ask(t, server, kind, device)
				message := retriever.MustRetrieve(t, kind, testbed.FrontEndKey, device.SerialNumber, key)
				signature, err := device.Sign(message)
				require.NoError(t, err)
				_, answer := other.Complete(t, kind, key, signature)
				assert.Contains(t, answer, `"STAT_SUCCESS"`)
				require.NoError(t, outcome(), "%s", kind.Name)
				for _, wrapped := range []bool{false, true} {
					key, outcome := testbed.Ask(t, server, kind, device)
					retriever.MustRetrieve(t, kind, testbed.FrontEndKey, device.SerialNumber, key)
					sent := key
					if wrapped {
						sent = testbed.WrapKey(t, device, key)
					}
					assert.Equal(t, testbed.Success, testbed.Answer(other.Cancel(t, kind, testbed.FrontEndKey, device.SerialNumber, sent)))
					require.Error(t, outcome(), "%s", kind.Name)
				}
			}
		}
	})
}
