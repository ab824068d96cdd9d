package activation_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// opener opens an empty store that takes the time from now if it can, and returns
// it as two gateway nodes see it.
type opener func(tb testing.TB, now func() time.Time) [2]activation.Store

func openMemory(_ testing.TB, now func() time.Time) [2]activation.Store {
	m := storetest.NewMemory(now)
	return [2]activation.Store{m, m}
}

// patient is a store whose calls take as long as they need: the Service gives those that
// do not end with the request a few seconds, which a slow machine may not keep.
type patient struct{ activation.Store }

func (p patient) Take(ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int) (activation.Handshake, bool, error) {
	return p.Store.Take(context.WithoutCancel(ctx), identifier, token, source, maxAttempts)
}

func (p patient) Settle(ctx context.Context, identifier string, s activation.Settlement) (activation.Record, bool, error) {
	return p.Store.Settle(context.WithoutCancel(ctx), identifier, s)
}

func (p patient) Load(ctx context.Context, identifier string) (activation.Record, bool, error) {
	return p.Store.Load(context.WithoutCancel(ctx), identifier)
}

func (p patient) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) error {
	return p.Store.ReturnDevice(context.WithoutCancel(ctx), identifier, generation)
}

func (p patient) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) error {
	return p.Store.ReturnConfirmation(context.WithoutCancel(ctx), identifier, generation)
}

func (p patient) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	return p.Store.Remove(context.WithoutCancel(ctx), identifier, generation)
}

// openEmbedded opens a file, which only one process can hold: both nodes are the
// same, before and after a reload.
func openEmbedded(tb testing.TB, now func() time.Time) [2]activation.Store {
	tb.Helper()
	return openEmbeddedWith(tb, embedded.Options{Now: now})
}

func openEmbeddedWith(tb testing.TB, options embedded.Options) [2]activation.Store {
	tb.Helper()
	s, err := embedded.Open(filepath.Join(tb.TempDir(), "dsapp.db"), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return [2]activation.Store{patient{s}, patient{s}}
}

// openRedis starts a server and returns what opens stores on it, each under a key
// prefix of its own, with one client for each node. They have the server's clock.
// The cap on simulated state is the default if it is 0.
func openRedis(tb testing.TB, maxSimulated int) func(testing.TB, func() time.Time) [2]activation.Store {
	tb.Helper()
	server := redistest.Start(tb)
	var clients [2]goredis.UniversalClient
	for i := range clients {
		client, err := redis.NewClient(redis.Settings{Addresses: []string{server.Addr()}, Timeout: poll.Patience})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := client.Close(); err != nil {
				tb.Error(err)
			}
		})
		clients[i] = client
	}
	var n atomic.Int32
	return func(testing.TB, func() time.Time) [2]activation.Store {
		options := redis.Options{KeyPrefix: fmt.Sprintf("store-%d", n.Add(1)), MaxSimulated: maxSimulated}
		return [2]activation.Store{patient{redis.New(clients[0], options)}, patient{redis.New(clients[1], options)}}
	}
}

// overEveryStore runs a check of a Service over every store that a gateway can have and
// over the model. followsClock tells whether the store takes the time from now.
func overEveryStore(t *testing.T, check func(t *testing.T, open opener, followsClock bool)) {
	t.Helper()
	t.Parallel()
	for name, run := range map[string]func(t *testing.T){
		"memory":   func(t *testing.T) { t.Helper(); check(t, openMemory, true) },
		"embedded": func(t *testing.T) { t.Helper(); check(t, openEmbedded, true) },
		"redis":    func(t *testing.T) { t.Helper(); check(t, openRedis(t, 0), false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

// These tests do not run beside others.

func TestTimeDoesNotTellOnEmbedded(t *testing.T) {
	checkTime(t, openEmbedded, func(tb testing.TB, now func() time.Time) [2]activation.Store {
		tb.Helper()
		return openEmbeddedWith(tb, embedded.Options{Now: now, MaxSimulated: 1})
	})
}

func TestTimeDoesNotTellOnRedis(t *testing.T) {
	checkTime(t, openRedis(t, 0), openRedis(t, 1))
}
