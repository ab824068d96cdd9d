package activation_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

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
	return [2]activation.Store{s, s}
}

// openRedis starts a server and returns what opens stores on it, each under a key
// prefix of its own, with one client for each node. They have the server's clock.
// The cap on simulated state is the default if it is 0.
func openRedis(tb testing.TB, maxSimulated int) func(testing.TB, func() time.Time) [2]activation.Store {
	tb.Helper()
	server := redistest.Start(tb)
	var clients [2]goredis.UniversalClient
	for i := range clients {
		client, err := redis.NewClient(redis.Settings{Addresses: []string{server.Addr()}, Timeout: 10 * time.Second})
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
		return [2]activation.Store{redis.New(clients[0], options), redis.New(clients[1], options)}
	}
}

// What holds for a Service holds over every store that a gateway can have.

func TestStormOnEmbedded(t *testing.T) {
	t.Parallel()
	activation.CheckStorm(t, openEmbedded)
}

func TestStormOnRedis(t *testing.T) {
	t.Parallel()
	activation.CheckStorm(t, openRedis(t, 0))
}

func TestContentionOnEmbedded(t *testing.T) {
	t.Parallel()
	activation.CheckContention(t, openEmbedded)
}

func TestContentionOnRedis(t *testing.T) {
	t.Parallel()
	activation.CheckContention(t, openRedis(t, 0))
}

func TestModelOnEmbedded(t *testing.T) {
	t.Parallel()
	activation.CheckModel(t, openEmbedded, true)
}

func TestModelOnRedis(t *testing.T) {
	t.Parallel()
	activation.CheckModel(t, openRedis(t, 0), false)
}

// These tests do not run beside others.

func TestTimeDoesNotTellOnEmbedded(t *testing.T) {
	activation.CheckTime(t, openEmbedded, func(tb testing.TB, now func() time.Time) [2]activation.Store {
		tb.Helper()
		return openEmbeddedWith(tb, embedded.Options{Now: now, MaxSimulated: 1})
	})
}

func TestTimeDoesNotTellOnRedis(t *testing.T) {
	activation.CheckTime(t, openRedis(t, 0), openRedis(t, 1))
}
