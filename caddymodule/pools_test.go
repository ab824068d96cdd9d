package caddymodule

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// poolEntry is the content of a pool under one key.
type poolEntry struct {
	references int
	value      any
	// open is the open store of a resource. It is nil before the first use, and an error
	// after the resource was closed.
	open any
}

// poolEntries returns the content of all pools.
func poolEntries() map[string]poolEntry {
	entries := make(map[string]poolEntry)
	for name, pool := range map[string]*caddy.UsagePool{"store": storePool, "state": statePool, "limiters": limiterPool} {
		values := make(map[any]any)
		pool.Range(func(key, value any) bool {
			values[key] = value
			return true
		})
		for key, value := range values {
			if n, ok := pool.References(key); ok {
				entries[fmt.Sprint(name, " ", key)] = poolEntry{n, value, openStore(value)}
			}
		}
	}
	return entries
}

func openStore(value any) any {
	switch r := value.(type) {
	case *resource[*embeddedFile]:
		return currentValue(r)
	case *resource[*redisClient]:
		return currentValue(r)
	}
	return nil
}

func currentValue[T pooled](r *resource[T]) any {
	value, opened, err := r.current()
	switch {
	case err != nil:
		return err
	case opened:
		return value
	}
	return nil
}

// poolEntries knows all pools of the package.
func TestPoolEntriesAreComplete(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	pools := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pools += strings.Count(string(source), "caddy.NewUsagePool()")
	}
	if pools != 3 {
		t.Errorf("there are %d pools", pools)
	}
}

// waitForPools waits until the pools have the same content as before: as many references
// to the same values, which are still open if they were.
func waitForPools(t *testing.T, before map[string]poolEntry) {
	t.Helper()
	var now map[string]poolEntry
	defer func() {
		if !maps.Equal(now, before) {
			t.Logf("the pools contain\n%v\nand contained\n%v", now, before)
		}
	}()
	poll.Until(t, "the pools to have their earlier content", func() bool {
		now = poolEntries()
		return maps.Equal(now, before)
	})
}

// waitUntilIdle waits until no configuration does anything any more. It returns the
// remaining content of the pools: stores that other tests provisioned and neither used
// nor released.
func waitUntilIdle(t *testing.T) map[string]poolEntry {
	t.Helper()
	var rest map[string]poolEntry
	poll.Until(t, "all configurations to end", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		rest = poolEntries()
		for key, entry := range rest {
			if !strings.HasPrefix(key, "store ") || entry.open != nil {
				return false
			}
		}
		return !bytes.Contains(stacks, []byte("(*App).onStarted")) && !bytes.Contains(stacks, []byte("returnToPool"))
	})
	return rest
}

// rapidTB reports a failure to rapid, which then shows what it drew.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (r rapidTB) Fatalf(format string, args ...any) { r.rt.Fatalf(format, args...) }

// loadedConfig is a configuration that the following test has loaded.
type loadedConfig struct {
	app      *App
	storeKey string
	servers  []string // their URLs
	requests int
}

// In whatever order configurations are loaded, rejected and stopped, while requests run or
// arrive late, the pools contain exactly what the running configuration and the requests of
// others need. Nothing that is in use is replaced or closed.
func TestPoolsContainWhatIsUsed(t *testing.T) {
	rest := waitUntilIdle(t)
	server := redistest.Start(t)
	defects := append(gatewayDefects(), otherModuleDefects()...)
	rapid.Check(t, func(rt *rapid.T) {
		folder, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		stores := []object{
			{"backend": "embedded", "path": filepath.Join(folder, "a.db")},
			{"backend": "embedded", "path": filepath.Join(folder, "b.db")},
			{"backend": "redis", "addresses": []string{server.Addr()}, "timeout": "10s"},
			{"backend": "redis", "addresses": []string{server.Addr()}, "key_prefix": "other", "timeout": "10s"},
		}
		servers := []string{"https://127.0.0.1:1/", "https://127.0.0.1:2/", "https://127.0.0.1:3/"}
		draw := func() object {
			var instances []any
			for i, address := range rapid.Permutation(servers).Draw(rt, "servers")[:rapid.IntRange(1, len(servers)).Draw(rt, "instances")] {
				name := "primary"
				if i > 0 {
					name += fmt.Sprint(i)
				}
				instances = append(instances, object{"name": name, "url": address})
			}
			dsapp := gatewayConfig(t)
			dsapp["sealing_keys"] = []string{testSealingKey}
			dsapp["store"] = rapid.SampledFrom(stores).Draw(rt, "store")
			dsapp["authentication_servers"] = object{"instances": instances}
			config := caddyConfig(t, dsapp)
			in(config, "apps")[otherAppName] = object{}
			in(config, "apps")["http"] = object{"servers": object{"gateway": object{
				"listen": []string{"127.0.0.1:0"}, "automatic_https": object{"disable": true},
				"routes": []object{{"handle": []object{{"handler": "dsapp_gateway"}}}},
			}}}
			return copyOf(t, config)
		}

		var current *loadedConfig
		var all []*loadedConfig
		before := poolEntries()
		check := func() {
			want := make(map[string]int)
			for key, entry := range rest {
				want[key] = entry.references
			}
			for _, l := range all {
				if l == current || l.requests > 0 {
					want["store "+l.storeKey]++
				}
			}
			if current != nil {
				want["limiters "+limitersKey]++
				for _, address := range current.servers {
					want["state "+address]++
				}
			}
			var got map[string]poolEntry
			poll.Until(rapidTB{t, rt}, fmt.Sprintf("the pools to have the references %v", want), func() bool {
				got = poolEntries()
				references := make(map[string]int)
				for key, entry := range got {
					references[key] = entry.references
				}
				return maps.Equal(references, want)
			})
			for key, entry := range got {
				was, ok := before[key]
				if ok && was.value != entry.value {
					rt.Fatalf("%s was replaced", key)
				}
				if ok && was.open != nil && was.open != entry.open {
					rt.Fatalf("%s was opened again or closed: %v", key, entry.open)
				}
			}
			before = got
		}
		reject := func(config object, d defect) {
			d.apply(t, config)
			if err := caddy.Load(encode(t, config), true); err == nil || !strings.Contains(err.Error(), d.want) {
				rt.Fatalf("err = %v", err)
			}
			check()
		}
		end := func(l *loadedConfig) {
			l.app.store.(interface{ endRequest() }).endRequest()
			l.requests--
			check()
		}
		stop := func() {
			if err := caddy.Stop(); err != nil {
				rt.Fatal(err)
			}
			current = nil
			check()
		}
		withRequests := func() []*loadedConfig {
			return slices.DeleteFunc(slices.Clone(all), func(l *loadedConfig) bool { return l.requests == 0 })
		}
		defer func() {
			for _, l := range withRequests() {
				for l.requests > 0 {
					end(l)
				}
			}
			stop()
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"load": func(*rapid.T) {
				config := draw()
				if err := caddy.Load(encode(t, config), true); err != nil {
					rt.Fatal(err)
				}
				current = &loadedConfig{app: activeApp(), servers: slices.Clone(activeApp().AuthenticationServers.stateKeys)}
				current.storeKey = current.app.store.(interface{ poolKey() string }).poolKey()
				all = append(all, current)
				check()
			},
			"reject": func(*rapid.T) {
				config := draw()
				backend := in(config, "apps", appName, "store")["backend"]
				d := rapid.SampledFrom(defects).Filter(func(d defect) bool {
					return d.backend == "" || d.backend == backend
				}).Draw(rt, "defect")
				// Some defects need a single instance with the name primary.
				s := in(config, "apps", appName, "authentication_servers")
				s["instances"] = s["instances"].([]any)[:1]
				reject(config, d)
			},
			"fail to start": func(*rapid.T) {
				reject(draw(), rapid.SampledFrom(append(startDefects(), lateDefect)).Draw(rt, "defect"))
			},
			"stop": func(*rapid.T) { stop() },
			"begin": func(*rapid.T) {
				if len(all) == 0 {
					rt.Skip("nothing was loaded")
				}
				l := rapid.SampledFrom(all).Draw(rt, "configuration")
				l.app.store.Begin()
				l.requests++
				release, err := l.app.activation.Reserve(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				release()
				check()
			},
			"end": func(*rapid.T) {
				some := withRequests()
				if len(some) == 0 {
					rt.Skip("no request runs")
				}
				end(rapid.SampledFrom(some).Draw(rt, "configuration"))
			},
		})
	})
}

// poolKey is the key of the lease's resource.
func (l *lease[T]) poolKey() string { return l.key }
