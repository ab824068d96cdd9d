package redis_test

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// With replicas to wait for, nothing that was answered is lost when the master
// dies, and the store goes on by itself.
func TestFailover(t *testing.T) {
	t.Parallel()
	const callers = 6
	sentinel := redistest.StartSentinel(t, 2)
	client := newClient(t, redis.Settings{
		Addresses: sentinel.Addresses(), MasterName: redistest.MasterName, Timeout: 2 * time.Second,
	})
	s := redis.New(client, redis.Options{WaitReplicas: 1})
	records := make([]activation.Record, callers)
	for i := range records {
		records[i] = record(fmt.Sprintf("id-%d", i))
		create(t, s, records[i])
	}
	// Every caller reserves attempts until that fails.
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
	eventually(t, "a store that works again", func() bool {
		s.ExpireWrites()
		return reserve(t.Context(), s) == nil
	})
	r := record("after")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
}

// A Sentinel that hangs does not keep a client from asking the others.
func TestFrozenSentinel(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t, 0)
	// The client learns of the other Sentinels from the first.
	s := redis.New(newClient(t, redis.Settings{
		Addresses: sentinel.Addresses()[:1], MasterName: redistest.MasterName,
		DialTimeout: 100 * time.Millisecond, Timeout: 300 * time.Millisecond,
	}), redis.Options{})
	if err := reserve(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	sentinel.Sentinels[0].Freeze(t)
	sentinel.Servers[0].Command(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	s.ExpireWrites()
	err := reserve(t.Context(), s)
	if errors.Is(err, io.EOF) {
		// It still had the connection that was closed.
		err = reserve(t.Context(), s)
	}
	if err != nil {
		t.Errorf("no connection by another Sentinel: %v", err)
	}
}

// Too few replicas make a write unavailable, within the timeout and after one
// attempt; what was written stays. Reserve tells it in advance.
func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	eventually(t, "the replica", func() bool {
		return strings.Contains(master.Command(t, "INFO", "replication"), "state=online")
	})
	const timeout = 600 * time.Millisecond
	client := newClient(t, redis.Settings{Addresses: []string{master.Addr()}, Timeout: timeout})
	count := &counter{}
	client.AddHook(count)
	s := redis.New(client, redis.Options{WaitReplicas: 1})
	r := record("id-1")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
	s.ExpireWrites()
	if err := reserve(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
		t.Fatal(err)
	}
	before := count.trips.Load()
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{2}, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	if got := count.trips.Load() - before; got != 1 {
		t.Errorf("%d round trips with replicas to wait for, want 1", got)
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
	if took := time.Since(start); took < timeout/4 || took > 10*timeout {
		t.Errorf("settle took %v", took)
	}
	if got := count.trips.Load() - before; got != 1 {
		t.Errorf("settle: %d round trips, want 1", got)
	}
	few("writable, as what failed proves nothing", reserve(t.Context(), s))
	_, _, err = s.Create(t.Context(), record("id-2"), activation.Generation{})
	few("create", err)
	// Who does not wait is not concerned.
	if _, ok, err := s.Load(t.Context(), "id-2"); err != nil || !ok {
		t.Errorf("load of what was written: %v, error %v", ok, err)
	}
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
		t.Errorf("put handshake: %v", err)
	}

	replica.Thaw(t)
	// The repetition of a settlement waits for the replica too.
	eventually(t, "the settlement", func() bool {
		got, ok, err := s.Settle(t.Context(), "id-1", settlement(r, activation.Token{2}, true))
		return err == nil && ok && string(got.Data) == string(r.Data)
	})
	if got := replica.Command(t, "HGET", "dsapp:{id-1}:reg", "a"); got != "2" {
		t.Errorf("the replica has %s activations, want 2", got)
	}
}
