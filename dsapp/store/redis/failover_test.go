package redis_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// With WaitReplicas, nothing is lost that a call confirmed before the master was lost, and the
// store then uses the next master.
func TestFailover(t *testing.T) {
	t.Parallel()
	const callers = 6
	sentinel := redistest.StartSentinel(t, 2)
	client := newClient(t, redis.Settings{
		Addresses: sentinel.Addresses(), MasterName: redistest.MasterName, Timeout: 10 * time.Second,
	})
	s := redis.New(client, redis.Options{WaitReplicas: 1})
	records := make([]activation.Record, callers)
	for i := range records {
		records[i] = record(fmt.Sprintf("id-%d", i))
		create(t, s, records[i])
	}
	// Every caller reserves attempts until it gets an error.
	var taken [callers]int
	var started, wg sync.WaitGroup
	started.Add(callers)
	for i, r := range records {
		wg.Go(func() {
			begun := sync.OnceFunc(started.Done)
			defer begun()
			for n := 0; ; n++ {
				if n == 5 {
					begun()
				}
				token := activation.Token{byte(n), byte(n >> 8), 1}
				if _, err := s.PutHandshake(t.Context(), r.Identifier, handshake(r)); err != nil {
					return
				}
				_, ok, err := s.Take(t.Context(), r.Identifier, token, activation.Tag{}, 1<<30)
				if err != nil {
					return
				}
				if ok {
					taken[i]++
				}
			}
		})
	}
	started.Wait()
	first := sentinel.Servers[0]
	first.Stop()
	wg.Wait()
	next := sentinel.Master(t, first)
	for i, r := range records {
		if taken[i] < 5 {
			t.Errorf("only %d attempts succeeded before the master died", taken[i])
		}
		got, err := strconv.Atoi(next.Command(t, "HGET", "dsapp:{"+r.Identifier+"}:reg", "r"))
		if err != nil || got < taken[i] || got > taken[i]+1 {
			t.Errorf("%d attempts are counted, of %d that succeeded and one that is unknown; error %v", got, taken[i], err)
		}
	}
	poll.Until(t, "a store that works again", func() bool {
		s.ExpireWrites()
		return reserve(t.Context(), s) == nil
	})
	r := record("after")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
}

// If one Sentinel hangs, a client asks the others.
func TestFrozenSentinel(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t, 0)
	// The client learns the addresses of the other Sentinels from the first.
	s := redis.New(newClient(t, redis.Settings{
		Addresses: sentinel.Addresses()[:1], MasterName: redistest.MasterName,
		DialTimeout: 100 * time.Millisecond, Timeout: 300 * time.Millisecond,
	}), redis.Options{})
	poll.Until(t, "a store that works", func() bool { return reserve(t.Context(), s) == nil })
	sentinel.Sentinels[0].Freeze(t)
	sentinel.Servers[0].Command(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	s.ExpireWrites()
	poll.Until(t, "an answer of another Sentinel", func() bool { return reserve(t.Context(), s) == nil })
}

// If too few replicas confirm a write, the call fails after one attempt, and what was written
// stays. Reserve fails as well.
func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := startReplica(t, master)
	count := &counter{}
	newStore := func(timeout time.Duration) *redis.Store {
		client := newClient(t, redis.Settings{Addresses: []string{master.Addr()}, Timeout: timeout})
		client.AddHook(count)
		return redis.New(client, redis.Options{WaitReplicas: 1})
	}
	s := newStore(poll.Patience)
	r := record("id-1")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
	s.ExpireWrites()
	if err := reserve(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	put(t, s, "id-1", handshake(r))
	before := count.trips.Load()
	take(t, s, "id-1", activation.Token{2}, 3, true)
	if got := count.trips.Load() - before; got != 1 {
		t.Errorf("%d round trips with replicas to wait for, want 1", got)
	}

	const timeout = 2 * time.Second
	s = newStore(timeout)
	if err := load(t.Context(), s, "id-1"); err != nil { // connects
		t.Fatal(err)
	}
	replica.Freeze(t)
	few := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "too few replicas") {
			t.Errorf("%s: error %v", call, err)
		}
	}
	before = count.trips.Load()
	start := time.Now()
	_, _, err := s.Settle(t.Context(), "id-1", settlement(r, activation.Token{2}, true))
	few("settle", err)
	if took := time.Since(start); took < timeout/4 {
		t.Errorf("settle took %v", took)
	}
	if got := count.trips.Load() - before; got != 1 {
		t.Errorf("settle: %d round trips, want 1", got)
	}
	few("reserve, after a failure", reserve(t.Context(), s))
	_, _, err = s.Create(t.Context(), record("id-2"), activation.Generation{})
	few("create", err)
	// Load and PutHandshake do not wait for replicas.
	if _, ok, err := s.Load(t.Context(), "id-2"); err != nil || !ok {
		t.Errorf("load of what was written: %v, error %v", ok, err)
	}
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
		t.Errorf("put handshake: %v", err)
	}

	replica.Thaw(t)
	// A repeated Settle waits for the replica as well.
	poll.Until(t, "the settlement", func() bool {
		got, ok, err := s.Settle(t.Context(), "id-1", settlement(r, activation.Token{2}, true))
		return err == nil && ok && string(got.Data) == string(r.Data)
	})
	if got := replica.Command(t, "HGET", "dsapp:{id-1}:reg", "a"); got != "2" {
		t.Errorf("the replica has %s activations, want 2", got)
	}
}
