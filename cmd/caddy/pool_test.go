package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

const (
	// notice is how long the kernel waits until bytes that nobody acknowledges end a
	// connection.
	notice = 2 * time.Second
	// margin is for a busy machine.
	margin = 3 * time.Second
)

// untilWorking has phones call until each was answered, and tells how long that took.
func untilWorking(ctx context.Context, works func() bool) time.Duration {
	const phones = 10
	began := time.Now()
	var calls sync.WaitGroup
	for range phones {
		calls.Go(func() {
			for !works() && ctx.Err() == nil {
				select {
				case <-time.After(50 * time.Millisecond): // as a phone that tries again
				case <-ctx.Done():
				}
			}
		})
	}
	calls.Wait()
	return time.Since(began)
}

// However many connections to an authentication server were forgotten on the way to it,
// as firewalls do, calls work again as soon as the breaker lets one through: the gateway
// does not try these one by one.
func TestForgottenConnections(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	const cooldown = time.Second
	for _, pooled := range []int{10, 60} {
		t.Run(fmt.Sprint(pooled, " connections"), func(t *testing.T) {
			t.Parallel()
			server := startOAS(t, certs)
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				servers := dsapp["authentication_servers"].(object)
				servers["timeout"], servers["breaker"] = "20s", object{"cooldown": cooldown.String()}
				servers["max_connections"], servers["reserved_connections"] = pooled, 0
			})
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			retrieve := func() bool {
				status, _, err := g.try(ctx, retrievalPath, frontEndKey, pendingBody)
				return err == nil && status == http.StatusOK
			}

			var arrived atomic.Int64
			all := make(chan struct{})
			server.Intercept(func(http.ResponseWriter, *http.Request) bool {
				if arrived.Add(1) == int64(pooled) {
					close(all)
				}
				<-all
				return false
			})
			var calls sync.WaitGroup
			for range pooled {
				calls.Go(func() { assert.True(t, retrieve()) })
			}
			calls.Wait()
			server.Intercept(nil)
			require.Equal(t, pooled, server.forget(t))

			assert.Less(t, untilWorking(ctx, retrieve), notice+cooldown+margin)
		})
	}
}

// So it is with those to Redis, also if its answers are waited for much longer than the
// kernel waits for acknowledgements.
func TestForgottenConnectionsToRedis(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	const cooldown = time.Second // of the store's breaker
	for _, pooled := range []int{10, 60} {
		t.Run(fmt.Sprint(pooled, " connections"), func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			way := startRelay(t, redis.Addr())
			g := startGateway(t, certs, startOAS(t, certs).URL, func(dsapp object) {
				dsapp["store"] = object{
					"backend": "redis", "addresses": []string{way.Addr().String()}, "timeout": "20s", "pool_size": pooled,
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			cancelRequest := func() bool {
				status, _, err := g.try(ctx, kinds[0].cancel, frontEndKey, pendingBody)
				return err == nil && status == http.StatusOK
			}

			redis.Freeze(t)
			var calls sync.WaitGroup
			for range pooled {
				calls.Go(func() { assert.True(t, cancelRequest()) })
			}
			poll(t, "connections of all calls", func() bool { return way.accepted() >= pooled })
			redis.Thaw(t)
			calls.Wait()
			way.forget(t)

			assert.Less(t, untilWorking(ctx, cancelRequest), notice+cooldown+margin)
		})
	}
}
