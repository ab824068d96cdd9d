package redis_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// reports collects what a store reports.
type reports struct {
	mu    sync.Mutex
	lines []string
}

func (r *reports) report(_ context.Context, server string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := "answers"
	if err != nil {
		what = "silent"
		if !errors.Is(err, activation.ErrUnavailable) {
			what = err.Error()
		}
	}
	r.lines = append(r.lines, server+" "+what)
}

func (r *reports) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// refusedByBreaker reports whether a call was not sent because a breaker was open.
func refusedByBreaker(err error) bool {
	return breaker.IsOpen(err) && errors.Is(err, activation.ErrUnavailable)
}

// load makes a call that writes nothing and succeeds whatever is stored.
func load(ctx context.Context, s *redis.Store, identifier string) error {
	_, _, err := s.Load(ctx, identifier)
	return err
}

// scriptCounter counts calls that begin with a script. Those that open a connection do
// not.
type scriptCounter struct{ scripts atomic.Int32 }

func (c *scriptCounter) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (c *scriptCounter) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *scriptCounter) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		c.count(cmds[0])
		return next(ctx, cmds)
	}
}

func (c *scriptCounter) count(first goredis.Cmder) {
	if first.Name() == "evalsha" {
		c.scripts.Add(1)
	}
}

// Five calls to a server that hangs wait for the timeout. After that calls fail without being
// sent, whatever they are, until the server answers again. Each change is reported once.
func TestHangingServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var r reports
	client := newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: time.Second})
	count := &scriptCounter{}
	client.AddHook(count)
	s := redis.New(client, redis.Options{Report: r.report})
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Fatal(err)
	}
	server.Freeze(t)
	s.ExpireWrites()
	count.scripts.Store(0)
	for len(r.all()) == 0 {
		if err := load(t.Context(), s, "id-1"); !errors.Is(err, activation.ErrUnavailable) || refusedByBreaker(err) {
			t.Fatalf("error %v", err)
		}
	}
	if got := count.scripts.Load(); got != 5 {
		t.Errorf("%d calls were sent, want 5", got)
	}
	for !refusedByBreaker(load(t.Context(), s, "id-1")) {
	}
	for _, c := range calls(s, "id-1") {
		before := count.scripts.Load()
		err := c.call(t.Context())
		if !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if refusedByBreaker(err) && count.scripts.Load() != before {
			t.Errorf("%s was sent and refused", c.name)
		}
	}
	server.Thaw(t)
	poll.Until(t, "a store that works again", func() bool { return load(t.Context(), s, "id-1") == nil })
	if err := reserve(t.Context(), s); err != nil {
		t.Errorf("not writable: %v", err)
	}
	if got, want := r.all(), []string{server.Addr() + " silent", server.Addr() + " answers"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// An error that the server sends is an answer and does not open the breaker, however often it
// comes.
func TestRefusalsAreAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		call       func(ctx context.Context, s *redis.Store) error
		refuse     func(server *redistest.Server)
	}{
		{"full", "OOM", reserve, func(server *redistest.Server) { server.Command(t, "CONFIG", "SET", "maxmemory", "1") }},
		{"replica", "READONLY", reserve, func(server *redistest.Server) { server.Command(t, "REPLICAOF", "127.0.0.1", "1") }},
		{"stale replica", "MASTERDOWN", func(ctx context.Context, s *redis.Store) error { return load(ctx, s, "id-1") }, func(server *redistest.Server) {
			server.Command(t, "CONFIG", "SET", "replica-serve-stale-data", "no")
			server.Command(t, "REPLICAOF", "127.0.0.1", "1")
		}},
		// The server refuses the connection, before a command is sent.
		{"password", "NOAUTH", reserve, func(server *redistest.Server) { server.Command(t, "CONFIG", "SET", "requirepass", "secret") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r reports
			server := redistest.Start(t)
			tt.refuse(server)
			s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{Report: r.report})
			for range 20 {
				err := tt.call(t.Context(), s)
				if !errors.Is(err, activation.ErrUnavailable) || refusedByBreaker(err) || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want %s", err, tt.want)
				}
			}
			if got := r.all(); len(got) != 0 {
				t.Errorf("reports %q", got)
			}
		})
	}
}

// Calls whose callers stop waiting do not open the breaker, neither when their context is
// canceled nor when its deadline passes.
func TestCallersThatGoAway(t *testing.T) {
	t.Parallel()
	var r reports
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: time.Second}), redis.Options{Report: r.report})
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Fatal(err)
	}
	server.Freeze(t)
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if i%2 == 0 {
			// The client does not notice this and waits for its timeout.
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
		}
		if err := load(ctx, s, "id-1"); !errors.Is(err, activation.ErrUnavailable) || refusedByBreaker(err) {
			t.Fatalf("error %v", err)
		}
		cancel()
	}
	server.Thaw(t)
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Errorf("error %v of a server that works", err)
	}
	if got := r.all(); len(got) != 0 {
		t.Errorf("reports %q", got)
	}
}

// Only calls to the node of a cluster that hangs are refused. Calls to other nodes work, also
// as part of a method that calls both.
func TestOneNodeHangs(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 0)
	for _, node := range c.Masters {
		// By default, the other nodes would refuse everything after a while.
		node.Command(t, "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	var r reports
	s := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true, Timeout: time.Second}), redis.Options{Report: r.report})
	hanging := c.Masters[0]
	lost, others := identifierOn(t, c, hanging), []string{identifierOn(t, c, c.Masters[1]), identifierOn(t, c, c.Masters[2])}
	loadOthers := func() {
		t.Helper()
		for _, identifier := range others {
			if err := load(t.Context(), s, identifier); err != nil {
				t.Errorf("on another node: %v", err)
			}
		}
	}
	if err := load(t.Context(), s, lost); err != nil {
		t.Fatal(err)
	}
	loadOthers()
	hanging.Freeze(t)
	for !refusedByBreaker(load(t.Context(), s, lost)) {
		loadOthers()
	}
	loadOthers()
	claim := ownership.Claim{Key: others[0], Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, lost, time.Minute); !errors.Is(err, ownership.ErrUnavailable) && !errors.Is(err, activation.ErrUnavailable) || won {
		t.Errorf("claim without a list: %v, error %v", won, err)
	}
	if _, found, err := s.Owner(t.Context(), ownership.Login, claim.Key); err != nil || !found {
		t.Errorf("owner: %v, error %v", found, err)
	}
	hanging.Thaw(t)
	poll.Until(t, "the node", func() bool { return load(t.Context(), s, lost) == nil })
	if got, want := r.all(), []string{hanging.Addr() + " silent", hanging.Addr() + " answers"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// Calls to a cluster that has never answered are refused as well, although it is unknown which
// node they would go to.
func TestUnknownCluster(t *testing.T) {
	t.Parallel()
	var r reports
	s := redis.New(newClient(t, redis.Settings{
		Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Cluster: true, DialTimeout: 100 * time.Millisecond, Timeout: 100 * time.Millisecond,
	}), redis.Options{Report: r.report})
	for !refusedByBreaker(load(t.Context(), s, "id-1")) {
	}
	if got, want := r.all(), []string{" silent"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// A master that hangs is replaced by the one that Sentinels agree on next.
func TestHangingMaster(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t, 1)
	s := redis.New(newClient(t, redis.Settings{
		Addresses: sentinel.Addresses(), MasterName: redistest.MasterName, Timeout: time.Second,
	}), redis.Options{})
	poll.Until(t, "a store that works", func() bool { return reserve(t.Context(), s) == nil })
	first := sentinel.Servers[0]
	first.Freeze(t)
	s.ExpireWrites()
	if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	sentinel.Master(t, first)
	poll.Until(t, "the next master", func() bool { return reserve(t.Context(), s) == nil })
}
