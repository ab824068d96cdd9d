package redis_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// largest is a record of the greatest size there is.
func largest(identifier string) activation.Record {
	r := record(identifier)
	part := activation.MaxRecord / 3
	for _, field := range []*[]byte{&r.Facts, &r.Verifier, &r.Data} {
		*field = make([]byte, part)
		_, _ = rand.Read(*field) // never fails
	}
	return r
}

// fill has another client write until the server has no memory left, and go on trying
// until the test ends.
func fill(t *testing.T, server *redistest.Server, size int) {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), PoolSize: 2})
	ctx, cancel := context.WithCancel(t.Context())
	full := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		value, once := strings.Repeat("x", size), sync.OnceFunc(func() { close(full) })
		for i := 0; ctx.Err() == nil; i++ {
			if err := client.Set(ctx, fmt.Sprintf("other:%d", i), value, 0).Err(); err != nil && strings.HasPrefix(err.Error(), "OOM") {
				once()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = client.Close()
	})
	<-full
}

// Whatever another client does to the memory of a server: a registration for which room
// was reserved is kept. It is refused beforehand when there is no room, also if many come
// at once, and again accepted when there is.
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
			settings.Timeout = 10 * time.Second // for a machine that is busy
			s := redis.New(newClient(t, settings), redis.Options{})
			if err := reserve(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			last := servers[len(servers)-1]
			last.Command(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
			last.Command(t, "CONFIG", "SET", "maxmemory", "8mb")
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
			// These are under way while the memory runs out.
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
			// Many small keys would have the server enlarge its table of keys, by more
			// than it has memory for.
			for _, size := range []int{4096, 1024} {
				fill(t, last, size)
			}
			close(full)
			wg.Wait()
			if kept.Load() == 0 || refused.Load() == 0 {
				t.Errorf("%d registrations were kept and %d refused, want both", kept.Load(), refused.Load())
			}
			s.Later()
			refused.Store(0)
			for i := range 74 {
				register(fmt.Sprintf("late-%d", i))
			}
			if got := refused.Load(); got == 0 {
				t.Error("a full server keeps registrations")
			}
			last.Command(t, "CONFIG", "SET", "maxmemory", "0")
			kept.Store(0)
			register("after")
			if got := kept.Load(); got != 1 {
				t.Error("a server that has room again keeps no registration")
			}
		})
	}
}
