package redis_test

import (
	"context"
	"errors"
	"fmt"
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
)

// reports are what a store reported.
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

// refusedAtOnce reports whether a call was not made.
func refusedAtOnce(err error) bool {
	_, open := errors.AsType[*breaker.OpenError](err)
	return open && errors.Is(err, activation.ErrUnavailable)
}

// load is a call that writes nothing and does not care what is stored.
func load(ctx context.Context, s *redis.Store, identifier string) error {
	_, _, err := s.Load(ctx, identifier)
	return err
}

// quickest is the shortest time that a call took of many: what it takes without
// what else the machine does.
func quickest(t *testing.T, call func() error) time.Duration {
	t.Helper()
	least := time.Hour
	for range 50 {
		start := time.Now()
		err := call()
		least = min(least, time.Since(start))
		if !refusedAtOnce(err) {
			t.Fatalf("error %v is not that of a call that was not made", err)
		}
	}
	return least
}

// A server that hangs costs a few calls their timeouts, and then one call in a
// while. The others fail at once, whatever they are, and work again soon after the
// server does. Each change is reported once.
func TestCallsFailAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	// What must fail at once does so while no call is let through.
	const timeout = 200 * time.Millisecond
	var r reports
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: timeout}), redis.Options{Report: r.report})
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Fatal(err)
	}
	server.Freeze(t)
	s.ExpireWrites()
	var err error
	waited := 0
	for !refusedAtOnce(err) {
		start := time.Now()
		err = load(t.Context(), s, "id-1")
		if !errors.Is(err, activation.ErrUnavailable) {
			t.Fatalf("error %v", err)
		}
		if time.Since(start) >= timeout {
			waited++
		}
		if waited > 5 {
			t.Fatal("every call waits")
		}
	}
	if waited != 5 {
		t.Errorf("%d calls waited, want 5", waited)
	}
	if took := quickest(t, func() error { return load(t.Context(), s, "id-1") }); took > time.Millisecond {
		t.Errorf("a call that is not made takes %v", took)
	}
	for _, c := range calls(s, "id-1") {
		if err := c.call(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	server.Thaw(t)
	start := time.Now()
	eventually(t, "a store that works again", func() bool { return load(t.Context(), s, "id-1") == nil })
	// One cooldown, a call that was let through before, and room for a machine
	// that is busy.
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it worked again after %v", took)
	}
	if err := reserve(t.Context(), s); err != nil {
		t.Errorf("not writable: %v", err)
	}
	if got, want := r.all(), []string{server.Addr() + " silent", server.Addr() + " answers"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// scriptCounter counts pipelines that begin with a script. Those that greet a
// server do not.
type scriptCounter struct{ scripts atomic.Int32 }

func (c *scriptCounter) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (c *scriptCounter) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }

func (c *scriptCounter) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if cmds[0].Name() == "evalsha" {
			c.scripts.Add(1)
		}
		return next(ctx, cmds)
	}
}

// While a server hangs, callers do not wait for each other: of many at the same
// time, one at most finds out whether it works again.
func TestOneCallTries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const timeout = 100 * time.Millisecond
	client := newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: timeout})
	count := &scriptCounter{}
	client.AddHook(count)
	s := redis.New(client, redis.Options{})
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Fatal(err)
	}
	server.Freeze(t)
	for !refusedAtOnce(load(t.Context(), s, "id-1")) {
	}
	before, start := count.scripts.Load(), time.Now()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for time.Since(start) < 2500*time.Millisecond {
				_ = load(t.Context(), s, "id-1")
				// Refused calls take no time: they would keep the processors from
				// everything else.
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	// A cooldown follows each call that was let through, also while it waits.
	most := int32(time.Since(start)/time.Second) + 1
	if got := count.scripts.Load() - before; got < 1 || got > most {
		t.Errorf("%d calls were let through, want 1 to %d", got, most)
	}
}

// What a server answers, however often it says no, is an answer.
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
		// This one is sent before a command is: the connection is refused.
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
				if !errors.Is(err, activation.ErrUnavailable) || refusedAtOnce(err) || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want %s", err, tt.want)
				}
			}
			if got := r.all(); len(got) != 0 {
				t.Errorf("reports %q", got)
			}
		})
	}
}

// A caller that does not wait says nothing about the server, neither when it goes
// away nor when its time is up.
func TestCallersThatGoAway(t *testing.T) {
	t.Parallel()
	var r reports
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: 200 * time.Millisecond}), redis.Options{Report: r.report})
	if err := load(t.Context(), s, "id-1"); err != nil {
		t.Fatal(err)
	}
	server.Freeze(t)
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if i%2 == 0 {
			// The client goes on waiting, for nobody.
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
		}
		if err := load(ctx, s, "id-1"); !errors.Is(err, activation.ErrUnavailable) || refusedAtOnce(err) {
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

// A node of a cluster that hangs is left alone; what is on the others goes on, in
// the calls that concern both as well.
func TestOneNodeHangs(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 0)
	for _, node := range c.Masters {
		// Else the others refuse everything after a while.
		node.Command(t, "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	var r reports
	const timeout = 300 * time.Millisecond
	s := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true, Timeout: timeout}), redis.Options{Report: r.report})
	of := func(master *redistest.Server) string {
		for i := 0; ; i++ {
			if identifier := fmt.Sprintf("id-%d", i); c.Master(c.Slot(t, "{"+identifier+"}")) == master {
				return identifier
			}
		}
	}
	hanging := c.Masters[0]
	lost, others := of(hanging), []string{of(c.Masters[1]), of(c.Masters[2])}
	for _, identifier := range append(others, lost) {
		if err := load(t.Context(), s, identifier); err != nil {
			t.Fatal(err)
		}
	}
	claim := ownership.Claim{Key: others[0], Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	hanging.Freeze(t)
	for !refusedAtOnce(load(t.Context(), s, lost)) {
		for _, identifier := range others {
			if err := load(t.Context(), s, identifier); err != nil {
				t.Errorf("on another node: %v", err)
			}
		}
	}
	if took := quickest(t, func() error { return load(t.Context(), s, lost) }); took > time.Millisecond {
		t.Errorf("a call that is not made takes %v", took)
	}
	for _, identifier := range others {
		if err := load(t.Context(), s, identifier); err != nil {
			t.Errorf("on another node: %v", err)
		}
	}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, lost, time.Minute); !errors.Is(err, ownership.ErrUnavailable) && !errors.Is(err, activation.ErrUnavailable) || won {
		t.Errorf("claim without a list: %v, error %v", won, err)
	}
	if _, found, err := s.Owner(t.Context(), ownership.Login, claim.Key); err != nil || !found {
		t.Errorf("owner: %v, error %v", found, err)
	}
	hanging.Thaw(t)
	eventually(t, "the node", func() bool { return load(t.Context(), s, lost) == nil })
	if got, want := r.all(), []string{hanging.Addr() + " silent", hanging.Addr() + " answers"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// A cluster none of whose nodes answers from the start fails at once too, although
// it is not known yet who has what.
func TestUnknownCluster(t *testing.T) {
	t.Parallel()
	var r reports
	s := redis.New(newClient(t, redis.Settings{
		Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Cluster: true, DialTimeout: 100 * time.Millisecond, Timeout: 100 * time.Millisecond,
	}), redis.Options{Report: r.report})
	for !refusedAtOnce(load(t.Context(), s, "id-1")) {
	}
	if took := quickest(t, func() error { return load(t.Context(), s, "id-1") }); took > time.Millisecond {
		t.Errorf("a call that is not made takes %v", took)
	}
	if got, want := r.all(), []string{" silent"}; !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q", got, want)
	}
}

// The first master's end does not keep the store from the next one longer than a
// cooldown after Sentinels agree on it.
func TestFailoverIsNotDelayed(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t, 1)
	s := redis.New(newClient(t, redis.Settings{
		Addresses: sentinel.Addresses(), MasterName: redistest.MasterName, Timeout: 300 * time.Millisecond,
	}), redis.Options{})
	if err := reserve(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	first := sentinel.Servers[0]
	first.Freeze(t)
	s.ExpireWrites()
	done := make(chan struct{})
	works := make(chan time.Time, 1)
	go func() {
		defer close(works)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if reserve(t.Context(), s) == nil {
				works <- time.Now()
				return
			}
		}
	}()
	defer close(done)
	sentinel.Master(t, first)
	agreed := time.Now()
	select {
	case at := <-works:
		// A call that was let through a moment before still meets the first master.
		if delay := at.Sub(agreed); delay > 3*time.Second {
			t.Errorf("the next master was used %v after it was agreed on", delay)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the next master is not used")
	}
}
