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
)

// However many connections to an authentication server were forgotten on the way to it,
// as firewalls do, calls work again as soon as the breaker lets one through: the gateway
// does not try these one by one.
func TestForgottenConnections(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	const (
		phones   = 10
		cooldown = time.Second
		notice   = 2 * time.Second // until bytes that nobody acknowledges end a connection
		margin   = 3 * time.Second // for a busy machine
	)
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

			began := time.Now()
			for range phones {
				calls.Go(func() {
					for !retrieve() && ctx.Err() == nil {
						select {
						case <-time.After(50 * time.Millisecond): // as a phone that tries again
						case <-ctx.Done():
						}
					}
				})
			}
			calls.Wait()
			assert.Less(t, time.Since(began), notice+cooldown+margin)
		})
	}
}
