package authserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// switchable is a transport whose behavior the test changes. It counts the commands, and how often
// its idle connections were closed.
type switchable struct {
	mu    sync.Mutex
	does  transport
	calls int
	idle  int
}

func (b *switchable) CloseIdleConnections() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle++
}

func (b *switchable) set(does transport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.does = does
}

func (b *switchable) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	b.mu.Lock()
	b.calls++
	does := b.does
	b.mu.Unlock()
	return does.Post(ctx, header, command)
}

func (b *switchable) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// These outcomes of a command open the breaker, and those do not.
func TestBreakerCounts(t *testing.T) {
	t.Parallel()
	register := func(ctx context.Context, s *Servers) error {
		_, err := register(ctx, s, request)
		return err
	}
	login := func(ctx context.Context, s *Servers) error {
		return logIn(ctx, s, "123456")
	}
	leaving := func(ctx context.Context, s *Servers) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return register(ctx, s)
	}
	business := func(status string, code int) transport {
		return sending(answering(refused("RET_FAILURE", status, -1, code, "")))
	}
	page := func(status int) transport { return sending(writing(status, "text/html", "<html/>")) }
	for name, test := range map[string]struct {
		does  transport
		call  func(context.Context, *Servers) error
		opens bool
	}{
		"no connection":               {refusedDial, register, true},
		"connection lost":             {dropping, register, true},
		"no answer in time":           {hanging, register, true},
		"error page":                  {page(http.StatusBadGateway), register, true},
		"page":                        {page(http.StatusOK), register, true},
		"not the answer":              {sending(answering("<a/>")), register, true},
		"Fault":                       {sending(answerFault("Server")), register, true},
		"contradictory codes":         {sending(answering(refused("RET_FAILURE", "STAT_SUCCESS", 0, 0, ""))), register, true},
		"contradictory denial":        {sending(answering(refused("RET_SUCCESS", "STAT_LOCKED", 0, 1007, ""))), register, true},
		"no database":                 {business("STAT_COMMS", -10), register, true},
		"no memory":                   {business("STAT_MEMORY", -4), register, true},
		"operating system":            {business("STAT_OS_FAILURE", -20), register, true},
		"licence":                     {business("STAT_LICENCE", -30), register, true},
		"lost in a login":             {dropping, login, true},
		"success":                     {sending(answering(registered)), register, false},
		"success that cannot be used": {sending(answering(provisioned())), register, false},
		"refusal":                     {business("STAT_INVCREDENTIALS", 1000), register, false},
		"not found":                   {business("STAT_NOT_FOUND", -13), register, false},
		"Fault that blames the call":  {sending(answerFault("Client")), register, false},
		"login without an answer":     {hanging, login, true},
		"caller leaves":               {hanging, leaving, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &switchable{does: test.does}
				records := &recorder{}
				s := newServers(t, Config{
					Instances: []Instance{stub("primary", b)}, Timeout: 30 * time.Second, Logger: slog.New(records),
					Breaker: breaker.Settings{Failures: 3, Cooldown: 5 * time.Second},
				})
				for range 3 {
					_ = test.call(t.Context(), s)
				}
				err := test.call(t.Context(), s)
				open, isOpen := errors.AsType[*breaker.OpenError](err)
				if isOpen != test.opens || b.count() != 3 && test.opens || b.count() != 4 && !test.opens {
					t.Fatalf("%d commands, %v", b.count(), err)
				}
				lines := records.matching("^WARN circuit breaker ")
				if !test.opens {
					if len(lines) > 0 {
						t.Errorf("%q", lines)
					}
					return
				}
				checkFailure(t, name, err, ErrNotSent)
				if open.RetryAfter <= 0 || open.RetryAfter > 5*time.Second {
					t.Errorf("retry after %s", open.RetryAfter)
				}
				if len(lines) != 1 || !strings.HasPrefix(lines[0], "WARN circuit breaker of instance opened instance=primary cooldown=5s cause=") || strings.Contains(lines[0], secret) {
					t.Errorf("%q", lines)
				}

				time.Sleep(5 * time.Second)
				b.set(sending(answering(registered)))
				for range 2 {
					if err := register(t.Context(), s); err != nil {
						t.Error(err)
					}
				}
				if b.idle != 1 {
					t.Errorf("idle connections were closed %d times, want once, before the trial", b.idle)
				}
				if got := records.at(slog.LevelInfo); !slices.Contains(got, "INFO circuit breaker of instance closed instance=primary") {
					t.Errorf("%q", got)
				}
			})
		})
	}
}

// While the breaker of an instance is open, other instances get its commands without delay, and
// commands that only it can carry out fail at once.
func TestBreakerFailover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dead := &switchable{does: func(r *http.Request) (*http.Response, error) {
			time.Sleep(2 * time.Second) // as if the server did not respond to the dial
			return refusedDial(r)
		}}
		s := newServers(t, Config{
			Instances: []Instance{stub("primary", dead), stub("backup", sending(answering(registered)))}, Breaker: breaker.Settings{Failures: 2, Cooldown: 5 * time.Second},
		})
		for i, want := range []time.Duration{2 * time.Second, 2 * time.Second, 0, 0, 0} {
			start := time.Now()
			got, err := register(t.Context(), s, request)
			if err != nil || got.instance != "backup" || time.Since(start) != want {
				t.Errorf("command %d: %q in %s, %v", i, got.instance, time.Since(start), err)
			}
		}
		_, _, err := Call(t.Context(), s, At("primary"), soap.MDLAddDevice, soap.MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "0A"})
		if _, open := errors.AsType[*breaker.OpenError](err); !open || dead.count() != 2 {
			t.Errorf("%d commands, %v", dead.count(), err)
		}
		checkFailure(t, "affinity", err, ErrNotSent)
	})
}

// Servers with the same State share their breaker and what they know about reachability. A full
// queue is no failure.
func TestStateOutlivesServers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &switchable{does: refusedDial}
		in := stub("primary", b)
		in.State, in.MaxConnections, in.MaxQueue = new(State), 1, 0
		records := &recorder{}
		c := Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 2, Cooldown: 5 * time.Second}, Logger: slog.New(records)}
		first := newServers(t, c)
		_, _ = register(t.Context(), first, request)
		if err := in.State.limiter.acquire(t.Context(), later, unreserved(1, 0)); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err := register(t.Context(), first, request)
			if !errors.Is(err, errQueueFull) {
				t.Fatal(err)
			}
		}
		in.State.limiter.release(groupBackEnd)
		second := newServers(t, c)
		_, _ = register(t.Context(), second, request)
		// A command that the breaker refuses does not wait for a connection.
		if err := in.State.limiter.acquire(t.Context(), later, unreserved(1, 0)); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Servers{first, second, newServers(t, c)} {
			_, err := register(t.Context(), s, request)
			if _, open := errors.AsType[*breaker.OpenError](err); !open || b.count() != 2 {
				t.Errorf("%d commands, %v", b.count(), err)
			}
		}
		in.State.limiter.release(groupBackEnd)
		b.set(sending(answering(registered)))
		time.Sleep(5 * time.Second)
		if _, err := register(t.Context(), newServers(t, c), request); err != nil {
			t.Error(err)
		}
		if got := records.reachability(); !slices.Equal(got, []string{lostLine, backLine}) {
			t.Errorf("%q", got)
		}
	})
}

// watched returns an instance that can be reached by neither commands nor probes while down is
// true.
func watched(down *atomic.Bool, probes *atomic.Int64) Instance {
	in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
		if down.Load() {
			return refusedDial(r)
		}
		return sending(answering(registered))(r)
	}))
	in.Probe = func(context.Context) error {
		probes.Add(1)
		if down.Load() {
			return errors.New("no route to host")
		}
		return nil
	}
	return in
}

// Probes notice that an instance cannot be reached and that it can be reached again. An instance
// that answers commands is not probed.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var probes atomic.Int64
		records := &recorder{}
		var changes []BreakerChange
		s := newServers(t, Config{
			Instances: []Instance{watched(&down, &probes), stub("unwatched", transport(refusedDial))},
			Breaker:   breaker.Settings{Failures: 5, Cooldown: 5 * time.Second}, Logger: slog.New(records),
			BreakerChanged: func(_ context.Context, c BreakerChange) { changes = append(changes, c) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Watch(ctx, 10*time.Second)
		}()
		probed := func(after time.Duration, want int64) {
			t.Helper()
			probes.Store(0)
			time.Sleep(after)
			synctest.Wait()
			if got := probes.Load(); got != want {
				t.Fatalf("%d probes, want %d", got, want)
			}
		}
		refuses := func(want bool) {
			t.Helper()
			if got := s.instances[0].state.breaker.RetryAfter() > 0; got != want {
				t.Fatalf("open is %v", got)
			}
		}
		time.Sleep(time.Millisecond) // so that the next steps happen after a probe, not at the same time
		probed(10*time.Second, 1)
		if _, err := register(t.Context(), s, request); err != nil {
			t.Fatal(err)
		}
		probed(10*time.Second, 0)
		probed(10*time.Second, 1)

		down.Store(true)
		probed(11*time.Second, 2) // one second apart
		refuses(true)
		probed(5*time.Second, 1) // as soon as the cooldown ends
		refuses(true)
		down.Store(false)
		probed(5*time.Second, 1)
		refuses(false)
		probed(10*time.Second, 1)
		if got, err := register(t.Context(), s, request); err != nil || got.instance != "primary" {
			t.Errorf("%q, %v", got.instance, err)
		}
		if got := slices.Concat(records.at(slog.LevelWarn), records.at(slog.LevelInfo)); !slices.Equal(got, []string{
			"WARN instance cannot be reached operation=probe instance=primary cause=no route to host",
			"WARN circuit breaker of instance opened instance=primary cooldown=5s cause=no route to host",
			"INFO instance reached again operation=probe instance=primary",
			"INFO circuit breaker of instance closed instance=primary",
		}) {
			t.Errorf("%q", got)
		}
		if want := []BreakerChange{{"primary", true}, {"primary", false}}; !slices.Equal(changes, want) {
			t.Errorf("told %v, want %v", changes, want)
		}
		cancel()
		<-ended
	})
}

// Neither a single failed probe nor an interrupted one opens the breaker.
func TestWatchTolerates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := stub("primary", transport(refusedDial))
		var probes atomic.Int64
		in.Probe = func(ctx context.Context) error {
			switch probes.Add(1) {
			case 1:
				return errors.New("lost once")
			case 2:
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		s := newServers(t, Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 1, Cooldown: time.Second}})
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		s.Watch(ctx, 10*time.Second)
		if probes.Load() != 3 || s.instances[0].state.breaker.RetryAfter() != 0 {
			t.Errorf("%d probes, retry after %s", probes.Load(), s.instances[0].state.breaker.RetryAfter())
		}
	})
}

// A command that times out after having spent most of its time in the queue is no failure of the
// instance. Logins that wait for a user may use all connections.
func TestQueueIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := stub("primary", sending(func(w http.ResponseWriter, r *http.Request, command string) {
			takes := 200 * time.Millisecond
			if strings.Contains(command, "authUser") {
				takes = time.Hour
			}
			if sleep(r.Context(), takes) {
				answering(registered)(w, r, command)
			}
		}))
		in.MaxConnections, in.MaxQueue = 3, 100
		s := newServers(t, Config{
			Instances: []Instance{in}, Timeout: 30 * time.Second, Breaker: breaker.Settings{Failures: 5, Cooldown: 5 * time.Second},
		})
		if _, err := register(t.Context(), s, request); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() { _ = logIn(t.Context(), s, "push") })
		}
		time.Sleep(100 * time.Millisecond)
		for range 5 {
			group.Go(func() { _, _ = register(t.Context(), s, request) }) // sent 100 ms before the timeout
		}
		group.Wait()
		if _, err := register(t.Context(), s, request); err != nil {
			t.Error(err)
		}
	})
}

// Logins that time out are failures of the instance only if it answers no other commands.
func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := stub("primary", sending(func(w http.ResponseWriter, r *http.Request, command string) {
			if strings.Contains(command, "authUser") {
				<-r.Context().Done()
				return
			}
			answering(registered)(w, r, command)
		}))
		s := newServers(t, Config{Instances: []Instance{in}, Timeout: 30 * time.Second, Breaker: breaker.Settings{Failures: 2, Cooldown: 10 * time.Minute}})
		login := func() { _ = logIn(t.Context(), s, "push") }
		for range 5 {
			var group sync.WaitGroup
			for range 3 {
				group.Go(login)
			}
			time.Sleep(time.Second)
			if _, err := register(t.Context(), s, request); err != nil {
				t.Fatal(err)
			}
			group.Wait()
		}
		login()
		login()
		_, err := register(t.Context(), s, request)
		if _, open := errors.AsType[*breaker.OpenError](err); !open {
			t.Errorf("no failure although nothing else was answered: %v", err)
		}
	})
}

// A command is not sent if the breaker opened while it was in the queue.
func TestBreakerOpensWhileQueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &switchable{does: func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return dropping(r)
		}}
		in := stub("primary", b)
		in.MaxConnections, in.MaxQueue = 1, 100
		s := newServers(t, Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 2, Cooldown: 10 * time.Minute}})
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() { _, _ = register(t.Context(), s, request) })
		}
		group.Wait()
		if b.count() != 2 {
			t.Errorf("%d commands", b.count())
		}
	})
}

// The record of an opened breaker does not contain values that the server repeated in a Fault.
func TestNoValuesInBreakerLog(t *testing.T) {
	t.Parallel()
	records := &recorder{}
	s := newServers(t, Config{
		Instances: []Instance{stub("primary", sending(answerFault("Server."+secret)))}, Logger: slog.New(records),
		Breaker: breaker.Settings{Failures: 1, Cooldown: 10 * time.Minute},
	})
	_, _ = register(t.Context(), s, request)
	lines := records.at(slog.LevelWarn)
	if len(lines) != 2 || strings.Contains(strings.Join(lines, "\n"), secret) {
		t.Errorf("%q", lines)
	}
}

// If only the probe does not work, commands get a trial of the breaker after three failed probes.
func TestWrongProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := stub("primary", sending(answering(registered)))
		in.Probe = func(context.Context) error { return errors.New("no such host") }
		s := newServers(t, Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 5, Cooldown: 5 * time.Second}})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		start := time.Now()
		var watching sync.WaitGroup
		watching.Go(func() { s.Watch(ctx, 10*time.Second) })
		// Commands come a little later than probes, never at the same time.
		time.Sleep(12*time.Second + time.Millisecond)
		worked := 0
		for ctx.Err() == nil {
			if _, err := register(t.Context(), s, request); err == nil {
				worked++
				// The breaker opens after 11 s. Trials follow every 5 s.
				if after := time.Since(start).Truncate(time.Second); worked == 1 && after != 31*time.Second {
					t.Errorf("the first command works after %v", after)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		watching.Wait()
		// The first success closes the breaker. From then on the instance answers commands, so
		// it is not probed.
		if worked < 800 {
			t.Errorf("%d commands worked", worked)
		}
	})
}
