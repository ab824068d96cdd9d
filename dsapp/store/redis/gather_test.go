package redis_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// gathering is a Store that delays changes until Flush, which it calls after each.
type gathering struct{ *redis.Store }

func (s gathering) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	return cmp.Or(s.Store.Release(ctx, kind, key, token, serialNumber), s.Flush())
}

func (s gathering) KeepRelease(
	ctx context.Context, m repeat.Mark, outcome []byte, kind ownership.Kind, key string, token ownership.Token, serialNumber string,
) error {
	return cmp.Or(s.Store.KeepRelease(ctx, m, outcome, kind, key, token, serialNumber), s.Flush())
}

// openGathering starts a server and opens a Store that delays changes for that long, with the client of
// the Store.
func openGathering(t *testing.T, o redis.Options, delay time.Duration) (*redis.Store, *redistest.Server, goredis.UniversalClient) {
	t.Helper()
	server := redistest.Start(t)
	client := newClient(t, redis.Settings{Addresses: []string{server.Addr()}})
	o.Gather = delay
	return redis.New(client, o), server, client
}

// claimed makes so many claims.
func claimed(t *testing.T, s *redis.Store, n int) []ownership.Claim {
	t.Helper()
	claims := make([]ownership.Claim, n)
	for i := range claims {
		claims[i] = newClaim(strconv.Itoa(i), i)
		if won, err := s.Claim(t.Context(), ownership.Signature, claims[i], strconv.Itoa(i), time.Minute); err != nil || !won {
			t.Fatalf("claim: %v, error %v", won, err)
		}
	}
	return claims
}

// release releases a claim that claimed made.
func release(t *testing.T, s *redis.Store, c ownership.Claim) {
	t.Helper()
	if err := s.Release(t.Context(), ownership.Signature, c.Key, c.Token, c.Key); err != nil {
		t.Error(err)
	}
}

// exist reports which claims there are.
func exist(t *testing.T, s *redis.Store, claims []ownership.Claim) []bool {
	t.Helper()
	found := make([]bool, len(claims))
	for i, c := range claims {
		var err error
		if _, found[i], err = s.Owner(t.Context(), ownership.Signature, c.Key); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// Changes that are delayed are made by Flush, all in one round trip.
func TestGather(t *testing.T) {
	t.Parallel()
	s, server, client := openGathering(t, redis.Options{}, time.Hour)
	claims := claimed(t, s, 3)
	count := &counter{}
	client.AddHook(count)
	release(t, s, claims[0])
	m := repeat.Mark{Place: claims[1].Key, Token: repeat.Token{1}, Lifetime: time.Minute}
	if err := s.KeepRelease(t.Context(), m, []byte("outcome"), ownership.Signature, claims[1].Key, claims[1].Token, claims[1].Key); err != nil {
		t.Fatal(err)
	}
	if got := count.trips.Load(); got != 0 {
		t.Errorf("%d round trips before Flush", got)
	}
	// The scripts are unknown in the first round trip, and sent with the second one.
	server.Command(t, "SCRIPT", "FLUSH")
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	if got := count.trips.Load(); got != 2 {
		t.Errorf("%d round trips, want 2", got)
	}
	if got := exist(t, s, claims); !slices.Equal(got, []bool{false, false, true}) {
		t.Errorf("claims %v", got)
	}
	if e, found, err := s.Kept(t.Context(), m.Place, m.Digest); err != nil || !found || string(e.Outcome) != "outcome" {
		t.Errorf("kept %q, %v, error %v", e.Outcome, found, err)
	}
}

// Changes are made without Flush when they are as many as are sent together, or when they are due.
func TestGatheredChangesAreMade(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		delay  time.Duration
		claims int
	}{"many": {time.Hour, redis.MaxGathered}, "due": {time.Millisecond, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := openGathering(t, redis.Options{}, tt.delay)
			claims := claimed(t, s, tt.claims)
			for _, c := range claims {
				release(t, s, c)
			}
			poll.Until(t, "the end of the claims", func() bool { return !slices.Contains(exist(t, s, claims), true) })
		})
	}
}

// A claim that another node released just now is not one of its device any more: a call about the only
// other one would be taken for one about several.
func TestPendingWithoutReleased(t *testing.T) {
	t.Parallel()
	const serialNumber, delay = "VDS0000001", 10 * time.Millisecond
	for name, read := range map[string]func(ctx context.Context, s *redis.Store) ([]ownership.Claim, error){
		"alone": func(ctx context.Context, s *redis.Store) ([]ownership.Claim, error) {
			return s.Pending(ctx, ownership.Signature, serialNumber)
		},
		"marking": func(ctx context.Context, s *redis.Store) ([]ownership.Claim, error) {
			m := repeat.Mark{Place: serialNumber, Token: repeat.Token{1}, Lifetime: time.Minute}
			_, _, claims, err := s.MarkPending(ctx, m, ownership.Signature, serialNumber)
			return claims, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, server, _ := openGathering(t, redis.Options{}, delay)
			other := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{Gather: delay})
			claims := []ownership.Claim{newClaim("1", 1), newClaim("2", 2)}
			for _, c := range claims {
				if won, err := s.Claim(t.Context(), ownership.Signature, c, serialNumber, time.Minute); err != nil || !won {
					t.Fatalf("claim: %v, error %v", won, err)
				}
			}
			if err := s.Release(t.Context(), ownership.Signature, claims[0].Key, claims[0].Token, serialNumber); err != nil {
				t.Fatal(err)
			}
			got, err := read(t.Context(), other)
			if err != nil || len(got) != 1 || got[0].Key != claims[1].Key {
				t.Errorf("claims %v, error %v", got, err)
			}
		})
	}
}

// Changes from several callers are all made, each once, also if they call Flush at the same time. No
// round trip has more than its maximum.
func TestGatherConcurrently(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	made := 0
	s, _, client := openGathering(t, redis.Options{Observe: func(_ context.Context, c activation.StoreCall) {
		mu.Lock()
		defer mu.Unlock()
		if c.Call == "release" && c.Outcome == activation.StoreOK {
			made++
		}
	}}, time.Millisecond)
	claims := claimed(t, s, 400)
	longest := new(longestPipeline)
	client.AddHook(longest)
	var wg sync.WaitGroup
	for start := range 50 {
		wg.Go(func() {
			for i := start; i < len(claims); i += 50 {
				release(t, s, claims[i])
				if i%90 == 0 {
					_ = s.Flush()
				}
			}
		})
	}
	wg.Wait()
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	// A release has two commands.
	if got := longest.Load(); got > 2*redis.MaxGathered {
		t.Errorf("a round trip had %d commands", got)
	}
	if got := exist(t, s, claims); slices.Contains(got, true) {
		t.Errorf("claims %v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if made != len(claims) {
		t.Errorf("%d changes were observed, want %d", made, len(claims))
	}
}

// longestPipeline is a hook that notes how many commands the longest pipeline has.
type longestPipeline struct{ atomic.Int64 }

func (*longestPipeline) DialHook(next goredis.DialHook) goredis.DialHook          { return next }
func (*longestPipeline) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }

func (l *longestPipeline) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		for seen := l.Load(); int64(len(cmds)) > seen && !l.CompareAndSwap(seen, int64(len(cmds))); seen = l.Load() {
		}
		return next(ctx, cmds)
	}
}

// While the server hangs, so many changes are delayed and no more: other calls wait for it.
func TestGatheredChangesAreLimited(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: poll.Patience}), redis.Options{Gather: time.Hour})
	server.Freeze(t)
	defer server.Thaw(t)
	delayed := 0
	for waited := 0; waited < 10; {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		c := newClaim("1", 1)
		if err := s.Release(ctx, ownership.Signature, c.Key, c.Token, "1"); err != nil {
			waited++
		} else {
			delayed, waited = delayed+1, 0
		}
		cancel()
	}
	if want := (redis.MaxBatches + 1) * redis.MaxGathered; delayed != want {
		t.Errorf("%d changes are delayed, want %d", delayed, want)
	}
}

// If the end of a claim fails, the outcome is kept all the same.
func TestOutcomeIsKeptAlone(t *testing.T) {
	t.Parallel()
	lost := 0
	s, server, _ := openGathering(t, redis.Options{Lost: func(context.Context, string, error) { lost++ }}, time.Hour)
	server.Command(t, "HSET", "dsapp:own:signature:{1}", "field", "value")
	for _, place := range []string{"1", "VDS0000001"} {
		m := repeat.Mark{Place: place, Token: repeat.Token{1}, Lifetime: time.Minute}
		if err := s.KeepRelease(t.Context(), m, []byte("outcome"), ownership.Signature, "1", ownership.Token{1}, "VDS0000001"); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); !errors.Is(err, activation.ErrDamaged) {
			t.Errorf("error %v", err)
		}
		if e, found, err := s.Kept(t.Context(), place, m.Digest); err != nil || !found || string(e.Outcome) != "outcome" {
			t.Errorf("kept %q, %v, error %v", e.Outcome, found, err)
		}
	}
	if lost != 2 {
		t.Errorf("%d changes were lost, want 2", lost)
	}
}

// A delayed change that fails is reported with the context of its call, which may have ended, and the
// others are made. Reserved memory is not relied on after that.
func TestLostChanges(t *testing.T) {
	t.Parallel()
	type contextKey struct{}
	type lost struct {
		who  any
		call string
		err  error
	}
	var all []lost
	var calls []activation.StoreCall
	s, server, _ := openGathering(t, redis.Options{
		Lost: func(ctx context.Context, call string, err error) {
			all = append(all, lost{ctx.Value(contextKey{}), call, err})
		},
		Observe: func(_ context.Context, c activation.StoreCall) { calls = append(calls, c) },
	}, time.Hour)
	claims := claimed(t, s, 2)
	calls = nil
	give := func() {
		for i, c := range claims {
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey{}, i))
			if err := s.Release(ctx, ownership.Signature, c.Key, c.Token, c.Key); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if err := s.Flush(); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
	}
	check := func(who int) {
		t.Helper()
		if all[0].who != who || all[0].call != "release" || !errors.Is(all[0].err, activation.ErrUnavailable) {
			t.Errorf("lost %+v", all[0])
		}
		all = all[1:]
	}

	server.Command(t, "DEL", "dsapp:own:signature:{1}")
	server.Command(t, "HSET", "dsapp:own:signature:{1}", "field", "value")
	give()
	if len(all) != 1 {
		t.Fatalf("lost %+v", all)
	}
	check(1)
	if len(calls) != 2 || calls[0].Outcome != activation.StoreOK || calls[1].Outcome != activation.StoreError {
		t.Errorf("calls %+v", calls)
	}
	if got := exist(t, s, claims[:1]); got[0] {
		t.Error("the other change was not made")
	}

	freed, err := s.Reserve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	freed()
	server.Stop()
	give()
	if _, err := s.Reserve(t.Context()); err == nil {
		t.Error("the reserved memory is still relied on")
	}
	if len(all) != 2 {
		t.Fatalf("lost %+v", all)
	}
	check(0)
	check(1)
}
