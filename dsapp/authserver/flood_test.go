package authserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// answerAll answers each of these commands with a success.
func answerAll(names ...string) handler {
	return func(w http.ResponseWriter, r *http.Request, command string) {
		for _, name := range names {
			if sample := samples[name]; strings.Contains(command, sample.sent[0]) {
				sample.succeed()(w, r, command)
				return
			}
		}
		http.Error(w, "unknown command", http.StatusNotImplemented)
	}
}

// Logins that the server never answers do not affect other commands, however many there are. Only
// MaxWaiting of them are at the server, MaxQueue wait in a queue of their own, and they do not open
// the breaker.
func TestFloodOfLogins(t *testing.T) {
	t.Parallel()
	const connections, reserved, waiting, queue, flood = 30, 6, 10, 20, 50
	frontEnd := []string{
		"getPreparedSecureChallenge", "authUser (completing)", "cancelAuthUser",
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest", "updateDevicePNID",
	}
	synctest.Test(t, func(t *testing.T) {
		var held highest
		others := sending(answerAll(append(frontEnd, "MDL_REGISTER")...))
		type login struct{}
		in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
			if r.Context().Value(login{}) == nil {
				return others(r)
			}
			held.add()
			defer held.now.Add(-1)
			return hanging(r)
		}))
		in.MaxConnections, in.ReservedConnections, in.MaxWaiting, in.MaxQueue, in.State = connections, reserved, waiting, queue, new(State)
		s := newServers(t, Config{
			Instances: []Instance{in}, Timeout: 2 * time.Second, Breaker: breaker.Settings{Failures: 2, Cooldown: 10 * time.Minute},
		})

		ctx, stop := context.WithCancel(t.Context())
		var late, refused, other atomic.Int64
		var logins sync.WaitGroup
		for range flood {
			logins.Go(func() {
				for ctx.Err() == nil {
					err := logIn(context.WithValue(ctx, login{}, true), s, "push")
					switch {
					case ctx.Err() != nil:
					case errors.Is(err, errQueueFull):
						refused.Add(1)
						sleep(ctx, 100*time.Millisecond)
					case errors.Is(err, ErrTimeout):
						late.Add(1)
					case !errors.Is(err, ErrNotSent): // timed out in the queue
						other.Add(1)
					}
				}
			})
		}
		synctest.Wait()
		if queued := in.State.limiter.queued[groupAwaitsUser]; held.now.Load() != waiting || queued != queue || refused.Load() != flood-waiting-queue {
			t.Errorf("%d logins at the server, %d queued, %d refused", held.now.Load(), queued, refused.Load())
		}

		for late.Load() < 3*waiting {
			for _, name := range frontEnd {
				sample := samples[name]
				if _, err := sample.call(ctx, s, "primary"); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := register(ForBackEnd(ctx), s, request); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		logins.Wait()
		if held.most.Load() != waiting || other.Load() > 0 {
			t.Errorf("%d logins at a time, %d ended in another way", held.most.Load(), other.Load())
		}
		if in.State.breaker.RetryAfter() != 0 {
			t.Error("the breaker is open")
		}
	})
}

// A login whose client has left is counted as long as the server may wait for the user, so that a
// client that breaks off logins cannot have more of them at the server than MaxWaiting.
func TestAbandonedLoginKeepsItsPlace(t *testing.T) {
	t.Parallel()
	received, release := make(chan struct{}, 2), make(chan struct{})
	answer := answerAll("authUser (OTP)")
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		received <- struct{}{}
		<-release // even if the client has left
		answer(w, r, command)
	})
	p.MaxConnections, p.MaxWaiting, p.MaxQueue = 10, 1, 10
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	login := func(ctx context.Context) error { return logIn(ctx, s, "push") }
	ctx, abandon := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- login(ctx) }()
	<-received
	abandon()
	briefly, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := login(briefly); !errors.Is(err, ErrNotSent) {
		t.Errorf("another login is not queued: %v", err)
	}
	if len(received) != 0 || len(ended) != 0 {
		t.Error("another login was sent")
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the abandoned login: %v", err)
	}
	if err := login(t.Context()); err != nil {
		t.Errorf("the next login: %v", err)
	}
}

// Slow commands of front ends use all connections that are not reserved and their own queue. All of
// these are answered in the end, and one more is refused. Commands of back ends begin at once, and
// logins have a queue of their own. All this holds across two configurations with the same State.
func TestFloodOfFrontEnds(t *testing.T) {
	t.Parallel()
	const connections, reserved, queue = 12, 3, 5
	proceed := make(chan struct{})
	all := answerAll("getPreparedSecureChallenge", "authUser (OTP)", "MDL_REGISTER")
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		if !strings.Contains(command, "PROVISIONCMD_MDL_REGISTER") {
			<-proceed
		}
		all(w, r, command)
	})
	p.MaxConnections, p.ReservedConnections, p.MaxWaiting, p.MaxQueue = connections, reserved, 4, queue
	p.State = new(State)
	c := Config{Instances: []Instance{p.Instance}, Breaker: breaker.Settings{Failures: 1, Cooldown: 10 * time.Minute}}
	first := newServers(t, c)
	counts := func() (running, queued [groups]int) {
		p.State.limiter.mu.Lock()
		defer p.State.limiter.mu.Unlock()
		return p.State.limiter.running, p.State.limiter.queued
	}

	results := make(chan error, connections+queue)
	retrieve := func(s *Servers) error {
		_, _, err := Call(t.Context(), s, Target{Search: true}, soap.GetPreparedSecureChallenge, retrieve)
		return err
	}
	for range connections - reserved + queue {
		go func() { results <- retrieve(first) }()
	}
	poll.Until(t, "retrievals at the server and in the queue", func() bool {
		_, queued := counts()
		return p.received.Load() == connections-reserved && queued[groupFrontEnd] == queue
	})
	login := make(chan error, 1)
	go func() {
		login <- logIn(t.Context(), first, "012345")
	}()
	poll.Until(t, "a login in the queue", func() bool { _, queued := counts(); return queued[groupAwaitsUser] == 1 })

	second := newServers(t, c)
	for _, s := range []*Servers{first, second} {
		if err := retrieve(s); !errors.Is(err, errQueueFull) || !errors.Is(err, ErrNotSent) {
			t.Errorf("one more of a front end: %v", err)
		}
		var registrations sync.WaitGroup
		for range reserved {
			registrations.Go(func() {
				for range 10 {
					if _, err := register(ForBackEnd(t.Context()), s, request); err != nil {
						t.Error(err)
					}
				}
			})
		}
		registrations.Wait()
	}
	if running, queued := counts(); running != [groups]int{0, connections - reserved, 0} || queued != [groups]int{0, queue, 1} {
		t.Errorf("%v in progress, %v waiting", running, queued)
	}
	close(proceed)
	for range connections - reserved + queue {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := <-login; err != nil {
		t.Error(err)
	}
	if running, waiting := p.State.limiter.state(); running != 0 || waiting != 0 {
		t.Errorf("%d in progress, %d waiting", running, waiting)
	}
}
