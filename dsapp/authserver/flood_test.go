package authserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// answerAll answers each of these commands with its success.
func answerAll(names ...string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, command string) {
		for _, name := range names {
			if m := methods[name]; strings.Contains(command, m.sent[0]) {
				m.succeeding()(w, r, command)
				return
			}
		}
		http.Error(w, "unknown command", http.StatusNotImplemented)
	}
}

// Logins that are never answered leave the other commands alone, however many
// there are: only so many of them are at the server, the rest waits in a queue of
// its own, and nothing is held against the server.
func TestFloodOfLogins(t *testing.T) {
	t.Parallel()
	const connections, reserved, waiting, queue, flood = 30, 6, 10, 20, 140
	frontEnd := []string{
		"getPreparedSecureChallenge", "authUser (completing)", "cancelAuthUser",
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest", "updateDevicePNID",
	}
	others := answerAll(append(frontEnd, "MDL_REGISTER")...)
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		if strings.Contains(command, "<aut:authUser>") && !strings.Contains(command, "CHALLENGE_KEY") {
			<-r.Context().Done()
			return
		}
		others(w, r, command)
	})
	// Counted at this end: the server learns later that nobody waits any more.
	var held highest
	type login struct{}
	wire := p.Transport
	p.Transport = transport(func(r *http.Request) (*http.Response, error) {
		if r.Context().Value(login{}) != nil {
			held.add()
			defer held.now.Add(-1)
		}
		return wire.RoundTrip(r)
	})
	p.MaxConnections, p.ReservedConnections, p.MaxWaiting, p.MaxQueue = connections, reserved, waiting, queue
	p.State = new(State)
	s := newServers(t, Config{
		Instances: []Instance{p.Instance}, Timeout: 2 * time.Second, Breaker: breaker.Settings{Failures: 2, Cooldown: 10 * time.Minute},
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
				case !errors.Is(err, ErrNotSent): // its turn did not come in time
					other.Add(1)
				}
			}
		})
	}
	defer logins.Wait()
	defer stop()
	full := func() bool {
		limiter := &p.State.limiter
		limiter.mu.Lock()
		defer limiter.mu.Unlock()
		return limiter.queued[groupAwaitsUser] == queue
	}
	eventually(t, func() bool { return held.now.Load() == waiting && full() && refused.Load() > 0 })

	rounds := 0
	for ; late.Load() < 2*waiting; rounds++ {
		for _, name := range frontEnd {
			m := methods[name]
			if _, err := m.call(ctx, s, "primary"); err != nil {
				t.Fatalf("round %d, %s: %v", rounds, name, err)
			}
		}
		if _, err := register(ForBackEnd(ctx), s, soap.MDLRegisterRequest{UserID: "jane.doe", StaticPassword: secret}); err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		sleep(ctx, 10*time.Millisecond)
	}
	if held.most.Load() != waiting || other.Load() > 0 {
		t.Errorf("%d logins at a time, %d with another end", held.most.Load(), other.Load())
	}
	if p.State.breaker.RetryAfter() != 0 {
		t.Error("the breaker is open")
	}
	t.Logf("%d rounds, %d logins timed out, %d were refused", rounds, late.Load(), refused.Load())
}

// A login whose client has gone keeps its place as long as the server may wait for the
// person: whoever breaks logins off has no more of them at the server than anybody else.
func TestAbandonedLoginKeepsItsPlace(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	answer := answerAll("authUser (OTP)")
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		arrived <- struct{}{}
		<-release // whether anybody waits or not
		answer(w, r, command)
	})
	p.MaxConnections, p.MaxWaiting, p.MaxQueue = 10, 1, 10
	s := newServers(t, Config{Instances: []Instance{p.Instance}, Timeout: time.Minute})
	login := func(ctx context.Context) error {
		return logIn(ctx, s, "push")
	}
	ctx, abandon := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- login(ctx) }()
	<-arrived
	abandon()
	briefly, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := login(briefly); !errors.Is(err, ErrNotSent) {
		t.Errorf("another login: %v, want one that waits", err)
	}
	if len(arrived) != 0 || len(ended) != 0 {
		t.Error("the place was given to another login")
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the abandoned login: %v", err)
	}
	if err := login(t.Context()); err != nil {
		t.Errorf("the next login: %v", err)
	}
}

// Front ends whose commands take long use up their share of the connections and
// their queue, and no more: the commands of back ends begin at once, logins wait
// in their own queue, and a configuration that follows finds all of them there.
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
	c := Config{Instances: []Instance{p.Instance}, Timeout: time.Minute, Breaker: breaker.Settings{Failures: 1, Cooldown: 10 * time.Minute}}
	first := newServers(t, c)
	loads := func() (running, queued [groups]int) {
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
	eventually(t, func() bool {
		running, queued := loads()
		return running[groupFrontEnd] == connections-reserved && queued[groupFrontEnd] == queue
	})
	login := make(chan error, 1)
	go func() {
		login <- logIn(t.Context(), first, "012345")
	}()
	eventually(t, func() bool { _, queued := loads(); return queued[groupAwaitsUser] == 1 })

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
	if running, queued := loads(); running != [groups]int{0, connections - reserved, 0} || queued != [groups]int{0, queue, 1} {
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
