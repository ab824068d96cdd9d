package redis_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// largest returns a record of the greatest size.
func largest(identifier string) activation.Record {
	r := record(identifier)
	part := activation.MaxRecord / 3
	for _, field := range []*[]byte{&r.Facts, &r.Verifier, &r.Data} {
		*field = make([]byte, part)
		_, _ = rand.Read(*field) // never fails
	}
	return r
}

// While other clients fill the memory of a server, every Create after a successful Reserve
// succeeds. Reserve fails when the server is full, also with many concurrent calls, and
// succeeds again when there is memory.
func TestFullServer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) ([]*redistest.Server, redis.Settings){
		"single": func(t *testing.T) ([]*redistest.Server, redis.Settings) {
			server := redistest.Start(t)
			return []*redistest.Server{server}, redis.Settings{Addresses: []string{server.Addr()}}
		},
		"cluster": func(t *testing.T) ([]*redistest.Server, redis.Settings) {
			c := redistest.StartCluster(t, 0)
			return c.Masters, redis.Settings{Addresses: c.Addresses(), Cluster: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, settings := start(t)
			s := redis.New(newClient(t, settings), redis.Options{})
			if err := reserve(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			last := servers[len(servers)-1]
			var kept, refused atomic.Int32
			register := func(identifier string) {
				release, err := s.Reserve(t.Context())
				if err != nil {
					if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
						t.Errorf("%s: error %v", identifier, err)
					}
					refused.Add(1)
					return
				}
				defer release()
				if _, ok, err := s.Create(t.Context(), largest(identifier), activation.Generation{}); err != nil || !ok {
					t.Errorf("%s was lost: created %v, error %v", identifier, ok, err)
				}
				kept.Add(1)
			}
			// These run while the memory is filled.
			full := make(chan struct{})
			var wg sync.WaitGroup
			for c := range 10 {
				wg.Go(func() {
					for i, late := 0, 0; late < 20; i++ {
						register(fmt.Sprintf("early-%d-%d", c, i))
						select {
						case <-full:
							late++
						default:
						}
					}
				})
			}
			stop := last.Fill(t, 4096, 1024)
			close(full)
			wg.Wait()
			if kept.Load() == 0 || refused.Load() == 0 {
				t.Errorf("%d registrations were kept and %d refused, want both", kept.Load(), refused.Load())
			}
			s.ExpireWrites()
			refused.Store(0)
			for i := range 74 {
				register(fmt.Sprintf("late-%d", i))
			}
			if got := refused.Load(); got == 0 {
				t.Error("a full server keeps registrations")
			}
			stop()
			kept.Store(0)
			register("after")
			if got := kept.Load(); got != 1 {
				t.Error("a server that has room again keeps no registration")
			}
		})
	}
}

// Reserve leaves at most one placeholder on every server, however often it fails because another
// master of the cluster or a replica is lost.
func TestFailedReservationsLeaveOnePlaceholder(t *testing.T) {
	t.Parallel()
	t.Run("master", func(t *testing.T) {
		t.Parallel()
		c := redistest.StartCluster(t, 0)
		s := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true}), redis.Options{})
		if err := reserve(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		c.Masters[2].Stop()
		s.ExpireWrites()
		for range 10 {
			if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
		}
		for _, server := range c.Masters[:2] {
			if got := placeholders(t, server); len(got) != 1 {
				t.Errorf("keys %q, want one", got)
			}
		}
	})
	t.Run("replica", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: 500 * time.Millisecond}), redis.Options{WaitReplicas: 1})
		for range 10 {
			if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
		}
		if got := placeholders(t, server); len(got) != 1 {
			t.Errorf("keys %q, want one", got)
		}
	})
}
