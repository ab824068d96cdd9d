package authserver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// A drained instance gets no registration and no one-time password. Whatever else may go to
// any instance goes to it last, and what belongs to it still goes there.
func TestDrainedInstance(t *testing.T) {
	t.Parallel()
	begins := map[string]bool{"MDL_REGISTER": true, "REGISTER": true, "dsappSRPRegister": true, "authUser (OTP)": true}
	for name, sample := range samples {
		for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
			servers := &cluster{}
			s := newServers(t, Config{Instances: servers.instances(), Deployment: deployment, Policy: PolicyFirst})
			check := func(what string, want [3]int64, instance string, does transport) {
				t.Helper()
				servers.begin(does)
				_, err := sample.call(t.Context(), s, instance)
				if got := servers.received(); got != want {
					t.Errorf("%s, %s, %s: received %v, want %v (%v)", name, deployment, what, got, want, err)
				}
			}
			works := sending(answering(sample.answerWith(success)))
			if !s.Drain("first", true) {
				t.Fatal("there is no such instance")
			}
			check("one drained", [3]int64{0, 1, 0}, "", works)
			wanted := all
			if begins[name] {
				wanted = [3]int64{0, 1, 1}
			}
			check("one drained, none reached", wanted, "", refusedDial)
			s.Drain("second", true)
			s.Drain("third", true)
			wanted = firstOnly
			if begins[name] {
				wanted = [3]int64{}
			}
			check("all drained", wanted, "", works)
			if !begins[name] && !strings.HasPrefix(name, "getPrepared") && name != "updateDevicePNID" {
				check("of a drained instance", [3]int64{0, 1, 0}, "second", works)
			}
			s.Drain("first", false)
			check("no longer drained", firstOnly, "", works)
		}
	}
}

// If all instances are drained, a registration fails as if none could be reached.
func TestAllDrained(t *testing.T) {
	t.Parallel()
	servers := &cluster{}
	s := newServers(t, Config{Instances: servers.instances()})
	for _, in := range s.Instances() {
		s.Drain(in.Name, true)
	}
	if s.Drain("fourth", true) {
		t.Error("there is a fourth instance")
	}
	_, err := register(t.Context(), s, request)
	failure := checkFailure(t, "all drained", err, ErrNotSent)
	if failure.Cause == nil || !strings.Contains(failure.Cause.Error(), "all instances are drained") {
		t.Errorf("the cause is %v", failure.Cause)
	}
}

// The status of an instance follows its breaker, its connections and its reachability. With
// probes, a half-open breaker counts as working only after a probe has reached the instance;
// without probes, it must count, because nothing but a command can close it.
func TestStatus(t *testing.T) {
	t.Parallel()
	for _, probed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := &switchable{does: sending(answering(registered))}
			in := stub("primary", server)
			in.URL.Host, in.URL.Path = "oas:8888", "/secret/"
			reachable := true
			if probed {
				in.Probe = func(context.Context) error {
					if reachable {
						return nil
					}
					_, err := refusedDial(nil)
					return err
				}
			}
			s := newServers(t, Config{Instances: []Instance{in}, Breaker: breaker.Settings{Failures: 1, Cooldown: 5 * time.Second}})
			check := func(what string, state breaker.State, since time.Time, working bool) {
				t.Helper()
				got := s.Instances()[0]
				if got.Name != "primary" || got.URL != "https://oas:8888" {
					t.Errorf("%s: %s at %s", what, got.Name, got.URL)
				}
				if got.Breaker != state || !got.BreakerSince.Equal(since) || got.Working != working {
					t.Errorf("%s (probed %t): %+v", what, probed, got)
				}
			}
			check("idle", breaker.StateClosed, time.Time{}, true)
			if got := s.Instances()[0]; !got.LastReached.IsZero() || !got.LastLost.IsZero() {
				t.Errorf("idle: %+v", got)
			}

			reachable = false
			server.set(refusedDial)
			opened := time.Now()
			_, _ = register(t.Context(), s, request)
			check("lost", breaker.StateOpen, opened, false)
			if got := s.Instances()[0]; !got.LastReached.IsZero() || !got.LastLost.Equal(opened) {
				t.Errorf("lost: %+v", got)
			}

			time.Sleep(5 * time.Second)
			check("cooled down", breaker.StateHalfOpen, opened, !probed)
			reachable = true
			server.set(sending(answering(registered)))
			if probed {
				ctx, stop := context.WithCancel(t.Context())
				var ended = make(chan struct{})
				go func() {
					defer close(ended)
					s.Watch(ctx, time.Second)
				}()
				time.Sleep(1500 * time.Millisecond)
				stop()
				<-ended
				check("reached by a probe", breaker.StateHalfOpen, opened, true)
			}
			closed := time.Now()
			if _, err := register(t.Context(), s, request); err != nil {
				t.Fatal(err)
			}
			check("works again", breaker.StateClosed, closed, true)
			if got := s.Instances()[0]; !got.LastReached.Equal(closed) {
				t.Errorf("works again: %+v", got)
			}
		})
	}
}

// The status counts the commands in progress and those that wait.
func TestStatusCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := stub("primary", transport(hanging))
		in.MaxConnections, in.MaxQueue = 2, 9
		s := newServers(t, Config{Instances: []Instance{in}, Timeout: time.Second})
		for range 5 {
			go func() { _, _ = register(t.Context(), s, request) }()
		}
		synctest.Wait()
		if got := s.Instances()[0]; got.InUse != 2 || got.Queued != 3 {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Minute)
		if got := s.Instances()[0]; got.InUse != 0 || got.Queued != 0 {
			t.Errorf("afterwards: %+v", got)
		}
	})
}
