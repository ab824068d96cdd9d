package ownership_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// request names a pending request.
type request struct {
	kind ownership.Kind
	key  form.PlainKey
}

// rules are the rules of ownership over a map of the owners.
type rules map[request]ownership.Owner

// verdict is what the rules say about a call.
type verdict struct {
	ownership.Verdict
	known bool
	// instances the call may go to, in any order.
	instances []string
	// release is the request that is forgotten once the call succeeded.
	release *request
}

// retrieve: an owned request is not there for anybody else, an unknown one is for
// the authentication server to give out.
func (m rules) retrieve(r request) verdict {
	if _, owned := m[r]; owned {
		return verdict{Verdict: ownership.AlreadyOwned, known: true}
	}
	return verdict{Verdict: ownership.Forward}
}

// complete: always the authentication server's decision, at the owner's instance.
func (m rules) complete(r request) verdict {
	if o, owned := m[r]; owned {
		return verdict{ownership.Forward, true, []string{o.Instance}, &r}
	}
	return verdict{Verdict: ownership.Forward}
}

// cancel with the plain key: for the application and device that own the request.
func (m rules) cancel(r request, c ownership.Caller, unknown ownership.Verdict) verdict {
	o, owned := m[r]
	switch {
	case !owned:
		return verdict{Verdict: unknown}
	case o.Application == c.Application && o.SerialNumber == c.SerialNumber:
		return verdict{ownership.Forward, true, []string{o.Instance}, &r}
	default:
		return verdict{Verdict: ownership.Foreign, known: true}
	}
}

// cancelWrapped: the device has requests of this kind, through this application or
// through others only. Which one is meant is clear if it has a single one.
func (m rules) cancelWrapped(kind ownership.Kind, c ownership.Caller, unknown ownership.Verdict) verdict {
	var pending []request
	instances := map[string]bool{}
	for r, o := range m {
		if r.kind != kind || o.SerialNumber != c.SerialNumber {
			continue
		}
		pending = append(pending, r)
		if o.Application == c.Application {
			instances[o.Instance] = true
		}
	}
	switch {
	case len(pending) == 0:
		return verdict{Verdict: unknown}
	case len(instances) == 0:
		return verdict{Verdict: ownership.Foreign, known: true}
	}
	v := verdict{Verdict: ownership.Forward, known: true, instances: slices.Sorted(maps.Keys(instances))}
	if len(pending) == 1 {
		v.release = &pending[0]
	}
	return v
}

// Every decision is that of the rules, after any sequence of retrievals, completions and
// cancellations by anybody on two nodes.
func TestDecisionsFollowTheRules(t *testing.T) {
	t.Parallel()
	r := ring(t, 1)
	rapid.Check(t, func(t *rapid.T) { checkDecisions(t, storetest.NewMemory(time.Now), r) })
}

func checkDecisions(rt *rapid.T, store ownership.Store, r *seal.Keyring) {
	open := func(context.Context) (ownership.Store, *seal.Keyring, error) { return store, r, nil }
	keys, devices := []form.PlainKey{"1", "a", "A", "11"}, []string{"VDS-1", "vds-1", "VDS-11"}
	applications, instances := []string{"bank-app", "other-app"}, []string{"primary", "backup", "third"}
	policy := rapid.SampledFrom([]ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown}).Draw(rt, "unknown")
	unknown := map[ownership.UnknownRequests]ownership.Verdict{ownership.ForwardUnknown: ownership.Forward, ownership.RefuseUnknown: ownership.Foreign}[policy]
	var nodes [2]*ownership.Service
	for i := range nodes {
		s, err := ownership.New(ownership.Config{Open: open, Unknown: policy})
		if err != nil {
			rt.Fatal(err)
		}
		nodes[i] = s
	}
	m := rules{}
	node := func(t *rapid.T) *ownership.Service { return nodes[rapid.IntRange(0, 1).Draw(t, "node")] }
	anyRequest := func(t *rapid.T) request {
		return request{rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom(keys).Draw(t, "key")}
	}
	claimant := func(t *rapid.T) ownership.Caller {
		return ownership.Caller{Application: rapid.SampledFrom(applications).Draw(t, "application"), SerialNumber: rapid.SampledFrom(devices).Draw(t, "device")}
	}
	agree := func(t *rapid.T, call string, d ownership.Decision, err error, want verdict) {
		t.Helper()
		if err != nil || d.StoreErr != nil {
			t.Fatalf("%s: error %v, %v", call, err, d.StoreErr)
		}
		if d.Verdict != want.Verdict || d.Known != want.known || !slices.Equal(slices.Sorted(slices.Values(d.Instances)), want.instances) {
			t.Fatalf("%s: %+v, the rules say %+v", call, d, want)
		}
	}
	// succeed is what follows a call that the authentication server carried out.
	succeed := func(t *rapid.T, s *ownership.Service, d ownership.Decision, want verdict) {
		t.Helper()
		if want.Verdict != ownership.Forward || rapid.Bool().Draw(t, "refused") {
			return
		}
		if err := s.Release(t.Context(), d); err != nil {
			t.Fatalf("release: %v", err)
		}
		if want.release != nil {
			delete(m, *want.release)
		}
	}
	rt.Repeat(map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			for _, kind := range kinds {
				for _, key := range keys {
					d, err := nodes[0].Retrieving(t.Context(), kind, key)
					agree(t, fmt.Sprintf("retrieving %s %s", kind, key), d, err, m.retrieve(request{kind, key}))
				}
			}
		},
		"retrieve": func(t *rapid.T) {
			r, c, s := anyRequest(t), claimant(t), node(t)
			o := ownership.Owner{Application: c.Application, SerialNumber: c.SerialNumber, Instance: rapid.SampledFrom(instances).Draw(t, "instance")}
			// The authentication server can give a request out to one that asked it before
			// another's claim was made.
			_, owned := m[r]
			won, err := s.RecordOwner(t.Context(), r.kind, r.key, o)
			if err != nil || won == owned {
				t.Fatalf("claim of %v: won %t, error %v, owned %t", r, won, err, owned)
			}
			if won {
				m[r] = o
			}
		},
		"complete": func(t *rapid.T) {
			r, s := anyRequest(t), node(t)
			d, err := s.Completing(t.Context(), r.kind, r.key)
			want := m.complete(r)
			agree(t, fmt.Sprintf("completing %v", r), d, err, want)
			succeed(t, s, d, want)
		},
		"cancel": func(t *rapid.T) {
			r, c, s := anyRequest(t), claimant(t), node(t)
			d, err := s.Cancelling(t.Context(), r.kind, form.Key(r.key), c)
			want := m.cancel(r, c, unknown)
			agree(t, fmt.Sprintf("cancelling %v by %v", r, c), d, err, want)
			succeed(t, s, d, want)
		},
		"cancel wrapped": func(t *rapid.T) {
			kind, c, s := rapid.SampledFrom(kinds).Draw(t, "kind"), claimant(t), node(t)
			key := form.Key(strings.Repeat(rapid.SampledFrom([]string{"0", "aF"}).Draw(t, "digits"), 32))
			d, err := s.Cancelling(t.Context(), kind, key, c)
			want := m.cancelWrapped(kind, c, unknown)
			agree(t, fmt.Sprintf("cancelling one of %s by %v", kind, c), d, err, want)
			succeed(t, s, d, want)
		},
	})
}
