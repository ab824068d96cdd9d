package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// Cleanup releases what Provision acquired and nothing else, however far Provision got, and
// also if it is called twice.
func TestCleanupAfterProvision(t *testing.T) {
	nothing := waitUntilIdle(t)
	for _, backend := range []string{"embedded", "redis"} {
		t.Run(backend, func(t *testing.T) {
			dsapp := gatewayConfig(t)
			if backend == "redis" {
				redisConfig(dsapp, "127.0.0.1:1")
			}
			provision := func(t *testing.T, config object) (app *App, cancel func(), err error) {
				t.Helper()
				var whole caddy.Config
				around := caddyConfig(t, config)
				delete(around, "apps")
				if err := caddy.StrictUnmarshalJSON(encode(t, around), &whole); err != nil {
					t.Fatal(err)
				}
				parent, err := caddy.ProvisionContext(&whole)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := caddy.NewContext(parent)
				app = new(App)
				if err := caddy.StrictUnmarshalJSON(encode(t, config), app); err != nil {
					return app, cancel, err
				}
				return app, cancel, app.Provision(ctx)
			}
			cleanUp := func(t *testing.T, app *App, cancel func()) {
				t.Helper()
				for range 2 {
					if err := app.Cleanup(); err != nil {
						t.Error(err)
					}
					cancel() // This cleans up the store.
				}
			}
			failures := func(t *testing.T) {
				t.Helper()
				before := poolEntries()
				for _, d := range gatewayDefects() {
					if d.backend != "" && d.backend != backend {
						continue
					}
					t.Run(d.want, func(t *testing.T) {
						config := copyOf(t, object{"apps": object{appName: dsapp}})
						d.apply(t, config)
						failed, cancel, err := provision(t, in(config, "apps", appName))
						if err == nil {
							t.Error("accepted")
						}
						cleanUp(t, failed, cancel)
						waitForPools(t, before)
					})
				}
			}
			t.Run("without another owner", failures)
			owner, cancel, err := provision(t, dsapp)
			if err != nil {
				t.Fatal(err)
			}
			before := poolEntries()
			t.Run("beside another owner", failures)
			valid, cancelValid, err := provision(t, dsapp)
			if err != nil {
				t.Fatal(err)
			}
			cleanUp(t, valid, cancelValid)
			waitForPools(t, before)
			cleanUp(t, owner, cancel)
			waitForPools(t, nothing)
		})
	}
}

// Cleanup of a module that was never provisioned releases nothing.
func TestCleanupWithoutProvision(t *testing.T) {
	owner := &App{limiters: newLimiters(new(limitValues))}
	if _, err := acquireLimiters(new(limitValues)); err != nil {
		t.Fatal(err)
	}
	before := poolEntries()
	for _, m := range []caddy.CleanerUpper{new(App), new(EmbeddedStore), new(RedisStore)} {
		for range 2 {
			if err := m.Cleanup(); err != nil {
				t.Errorf("%T: %v", m, err)
			}
		}
	}
	new(AuthenticationServers).close()
	waitForPools(t, before)
	if err := owner.Cleanup(); err != nil {
		t.Error(err)
	}
}
