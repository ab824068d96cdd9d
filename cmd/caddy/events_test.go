package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// emitted returns the names of the events that the gateway has emitted, in their order, and
// the data of the last one of each name. Caddy's app logs each event that it dispatches.
func emitted(t *testing.T, g *testbed.Gateway) (names []string, data map[string]testbed.Object) {
	t.Helper()
	data = make(map[string]testbed.Object)
	for line := range strings.Lines(g.Logs.String()) {
		if !strings.Contains(line, `"logger":"events"`) || !strings.Contains(line, `"msg":"event"`) || !strings.HasSuffix(line, "\n") {
			continue
		}
		var e struct {
			Name, Origin string
			Data         testbed.Object
		}
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		if e.Origin == "dsapp" {
			names = append(names, e.Name)
			data[e.Name] = e.Data
		}
	}
	return names, data
}

// awaitEvents waits until the gateway has emitted exactly these events, and returns the data
// of the last one.
func awaitEvents(t *testing.T, g *testbed.Gateway, want ...string) testbed.Object {
	t.Helper()
	var names []string
	var data map[string]testbed.Object
	poll.Until(t, fmt.Sprintf("the events %q", want), func() bool {
		names, data = emitted(t, g)
		return len(names) >= len(want)
	})
	require.Equal(t, want, names)
	return data[want[len(want)-1]]
}

// An authentication server that goes and returns makes one event each, with its name and the
// call that found out. A reload in between makes none.
func TestEventsOfBreaker(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"breaker": testbed.Object{"failures": 2, "cooldown": "100ms"}}, server.URL)
	server.Misbehave(t, testbed.Misconduct{Refuse: true})
	for range 2 {
		require.Equal(t, http.StatusServiceUnavailable, statusOf(t, g, testbed.Registering))
	}
	opened := awaitEvents(t, g, "breaker_opened")
	assert.Equal(t, "primary", opened["instance"])
	g.AwaitLog(t, fmt.Sprintf(`"request_id":%q`, opened["request_id"]))

	g.Load(t)
	server.Misbehave(t, testbed.Misconduct{})
	poll.Until(t, "the server to get commands", func() bool { return statusOf(t, g, testbed.Registering) == http.StatusOK })
	assert.Equal(t, "primary", awaitEvents(t, g, "breaker_opened", "breaker_closed")["instance"])
}

// A store that goes and returns, a registration that wrong proofs burn, and stored values that
// the gateway cannot use make an event each. None has a value of a person or a secret.
func TestEventsOfStore(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["store"] = testbed.RedisStore(redis.Addr())
	})
	g.AwaitLog(t, `"the store is ready"`)
	var want []string
	next := func(name string) testbed.Object {
		t.Helper()
		want = append(want, name)
		return awaitEvents(t, g, want...)
	}

	redis.Stop()
	assert.Equal(t, testbed.Object{"backend": "redis"}, next("store_lost"))
	// The new configuration finds the same store lost.
	g.Load(t)
	redis.Restart(t)
	assert.Equal(t, testbed.Object{"backend": "redis"}, next("store_back"))

	burned := g.Register(t)
	for range 3 {
		status, answer := g.Exchange(t, burned.Identifier, "wrong-password")
		require.Equal(t, http.StatusOK, status, answer)
	}
	data := next("registration_burned")
	g.AwaitLog(t, fmt.Sprintf(`"request_id":%q`, data["request_id"]))
	delete(data, "request_id")
	assert.Equal(t, testbed.Object{"registration": burned.Identifier, "application": "mobile-app"}, data)

	damaged := g.Register(t)
	redis.Command(t, "HSET", "dsapp:{"+damaged.Identifier+"}:reg", "r", "-1000")
	assert.Equal(t, http.StatusServiceUnavailable, firstCall(t, g, damaged.Identifier))
	assert.Equal(t, damaged.Identifier, next("record_damaged")["registration"])

	foreign := g.Register(t)
	own := newSealingKey()
	g.App()["sealing_keys"] = []string{own, testbed.SealingKey}
	g.Load(t)
	awaitResealed(t, g)
	g.App()["sealing_keys"] = []string{own}
	g.Load(t)
	assert.Equal(t, http.StatusServiceUnavailable, firstCall(t, g, foreign.Identifier))
	assert.Equal(t, foreign.Identifier, next("record_unopened")["registration"])
	assert.Zero(t, scrape(t, g)["caddy_dsapp_events_dropped_total"])
}
