package ownership_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// patient is a store whose calls take as long as they need: the Service gives those that
// do not end with the request a few seconds, which a slow machine may not keep.
type patient struct{ ownership.Store }

func (p patient) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (bool, error) {
	return p.Store.Claim(context.WithoutCancel(ctx), kind, c, serialNumber, lifetime)
}

func (p patient) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	return p.Store.Release(context.WithoutCancel(ctx), kind, key, token, serialNumber)
}

// openEmbedded opens a file, which only one process can hold: both nodes are the
// same, before and after a reload.
func openEmbedded(t *testing.T) [2]ownership.Store {
	t.Helper()
	s, err := embedded.Open(filepath.Join(t.TempDir(), "dsapp.db"), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return [2]ownership.Store{patient{s}, patient{s}}
}

// openRedis starts a server and connects one client for each node.
func openRedis(t *testing.T) [2]ownership.Store {
	t.Helper()
	server := redistest.Start(t)
	var stores [2]ownership.Store
	for i := range stores {
		client, err := redis.NewClient(redis.Settings{Addresses: []string{server.Addr()}, Timeout: poll.Patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		stores[i] = patient{redis.New(client, redis.Options{})}
	}
	return stores
}

// What one node stores of a request holds for the other, over every store.
func TestNodesShareOwners(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) [2]ownership.Store{"embedded": openEmbedded, "redis": openRedis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var nodes [2]*ownership.Service
			for i, store := range open(t) {
				s, err := ownership.New(ownership.Config{Open: opens(t, store, 1), Unknown: ownership.RefuseUnknown})
				if err != nil {
					t.Fatal(err)
				}
				nodes[i] = s
			}
			other := ownership.Caller{Application: "other-app", SerialNumber: device}
			verdict := func(want ownership.Verdict, instances int) func(ownership.Decision, error) ownership.Decision {
				return func(d ownership.Decision, err error) ownership.Decision {
					t.Helper()
					if err != nil || d.StoreErr != nil || d.Verdict != want || len(d.Instances) != instances {
						t.Errorf("decision %+v, error %v; want %s to %d instances", d, err, want, instances)
					}
					return d
				}
			}

			// Many phones of both nodes race for the request.
			verdict(ownership.Foreign, 0)(nodes[0].Cancelling(t.Context(), ownership.Login, plain, mine))
			var winners atomic.Int32
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					o := ownership.Owner{Application: application, SerialNumber: device, Instance: fmt.Sprintf("instance-%d", i)}
					won, err := nodes[i%2].RecordOwner(t.Context(), ownership.Login, plain, o)
					if err != nil {
						t.Error(err)
					}
					if won {
						winners.Add(1)
					}
				})
			}
			wg.Wait()
			if n := winners.Load(); n != 1 {
				t.Fatalf("%d winners", n)
			}

			for _, s := range nodes {
				verdict(ownership.AlreadyOwned, 0)(s.Retrieving(t.Context(), ownership.Login, plain))
				verdict(ownership.Forward, 1)(s.Completing(t.Context(), ownership.Login, plain))
				verdict(ownership.Forward, 0)(s.Completing(t.Context(), ownership.Signature, plain))
				for _, key := range []string{plain, wrapped} {
					verdict(ownership.Forward, 1)(s.Cancelling(t.Context(), ownership.Login, form.Key(key), mine))
					verdict(ownership.Foreign, 0)(s.Cancelling(t.Context(), ownership.Login, form.Key(key), other))
					verdict(ownership.Foreign, 0)(s.Cancelling(t.Context(), ownership.Signature, form.Key(key), mine))
				}
			}

			d := verdict(ownership.Forward, 1)(nodes[1].Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine))
			if err := nodes[1].Release(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			for _, s := range nodes {
				verdict(ownership.Forward, 0)(s.Retrieving(t.Context(), ownership.Login, plain))
				verdict(ownership.Foreign, 0)(s.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine))
			}
		})
	}
}
