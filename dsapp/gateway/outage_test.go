package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// Without a decision nothing is forwarded.
func TestNoDecision(t *testing.T) {
	t.Parallel()
	for _, op := range pendingOperations {
		for _, c := range []struct {
			err     error
			want    error
			trouble bool
		}{
			{errOwnership, &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}, true},
			{errors.New("other"), &Failure{Kind: Internal}, false},
		} {
			r := newRig(t, "")
			r.ownership.decideErr = c.err
			wantError(t, operations[op](t.Context(), r), c.want)
			if len(r.trace) != 1 {
				t.Errorf("%s: calls were %q", op, r.trace)
			}
			if len(r.events.verdicts) != 0 || len(r.events.audits) != 0 || r.servers.sent != nil {
				t.Errorf("%s: reported %v", op, &r.events)
			}
		}
	}
}

// While the store is down calls are forwarded without knowing the owner, which is
// reported.
func TestBlindDecision(t *testing.T) {
	t.Parallel()
	for _, op := range pendingOperations {
		r := newRig(t, "")
		r.ownership.decision.StoreErr = errOwnership
		if err := operations[op](t.Context(), r); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if len(r.servers.to.Instances) != 0 {
			t.Errorf("%s: command went to %q", op, r.servers.to.Instances)
		}
		if got := r.events.verdictsOf(op); got[0] != VerdictBlind {
			t.Errorf("%s: verdicts are %q", op, got)
		}
		if !strings.Contains(r.log.String(), "level=WARN") {
			t.Errorf("%s: nothing in the log", op)
		}
	}
}

// If the owner cannot be looked up and each instance has requests of its own, "not found"
// from the instance that was asked does not mean that the request does not exist. All
// other answers count.
func TestBlindCompletion(t *testing.T) {
	t.Parallel()
	absent := &authserver.Refusal{Instance: "third", Codes: notFound.Codes}
	unavailable := &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}
	refused := []AuditAction{AuditCompletionRefused}
	for name, c := range map[string]struct {
		blind      error
		replicated bool
		server     error
		want       error
		actions    []AuditAction
	}{
		"blind, replicated":                   {errOwnership, true, absent, unavailable, nil},
		"blind, shared database":              {errOwnership, false, absent, notFound, refused},
		"unknown, replicated":                 {nil, true, absent, notFound, refused},
		"blind, replicated, another refusal":  {errOwnership, true, errRefusal, &Refusal{Codes: errRefusal.Codes}, refused},
		"blind, replicated, without answer":   {errOwnership, true, callError(authserver.ErrTimeout), &Failure{Kind: Timeout}, nil},
		"blind, replicated, nothing was sent": {errOwnership, true, callError(authserver.ErrNotSent), unavailable, nil},
	} {
		for _, op := range []Operation{OpCompleteLogin, OpCompleteSignature} {
			r := newRig(t, "")
			r.ownership.decision.StoreErr = c.blind
			r.servers.replicated, r.servers.err = c.replicated, c.server
			err := operations[op](t.Context(), r)
			wantError(t, err, c.want)
			r.wantTrace(t, calls[op].own...)
			r.wantActions(t, c.actions...)
			if want := instanceOf(c.server); err != nil && c.want == unavailable && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: error is %v, want one that names %q", name, op, err, want)
			}
		}
	}
}

// A plain key proves nothing about its sender. While the store is down nothing is
// cancelled by a plain key.
func TestCancelByPlainKeyWhileStoreIsDown(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for _, unknown := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
			store := storetest.NewMemory(time.Now)
			breakDown(store, errors.New("connection refused"))
			_, remember := remembering(t, store, unknown)
			r := newRig(t, "", remember)
			_, err := k.cancel(r.Gateway, t.Context(), theCaller, CancelRequest{SerialNumber: "VDS1000003-1", Key: theKey})
			wantError(t, err, &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second})
			r.wantTrace(t)
		}
	}
}

// Failing to remove the owner does not change the answer.
func TestReleaseFails(t *testing.T) {
	t.Parallel()
	for _, op := range []Operation{OpCompleteLogin, OpCancelLogin, OpCompleteSignature, OpCancelSignature} {
		r := newRig(t, "")
		r.ownership.releaseErr = errOwnership
		if err := operations[op](t.Context(), r); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if !strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("%s: no error in the log", op)
		}
		if len(r.events.audits) != 1 {
			t.Errorf("%s: audited %q", op, r.events.actions())
		}
	}
}

// Failing to look up and to store the owner does not change the answer to a retrieval.
func TestStoreGoesDown(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		store := storetest.NewMemory(time.Now)
		_, remember := remembering(t, store, "")
		r := newRig(t, "", remember)
		breakDown(store, errors.New("connection refused"))
		if _, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve); err != nil {
			t.Errorf("%s: %v", k.kind, err)
		}
		if got, want := r.events.verdictsOf(k.onRetrieve), []Verdict{VerdictBlind, VerdictUnowned}; !slices.Equal(got, want) {
			t.Errorf("%s: verdicts are %q, want %q", k.kind, got, want)
		}
	}
}

// The owner is stored or removed even if the client leaves during the command.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		store := storetest.NewMemory(time.Now)
		_, remember := remembering(t, store, "")
		r := newRig(t, "", remember)
		ctx, leave := context.WithCancel(t.Context())
		r.servers.leave = leave
		if _, err := k.retrieve(r.Gateway, ctx, theCaller, theRetrieve); err != nil {
			t.Errorf("%s: %v", k.kind, err)
		}
		if len(ownedKeys(store, k.kind)) != 1 {
			t.Errorf("%s: the owner was not kept", k.kind)
		}
		ctx, leave = context.WithCancel(t.Context())
		r.servers.leave = leave
		if _, err := k.complete(r.Gateway, ctx, theCaller, theCompletion); err != nil {
			t.Errorf("%s: %v", k.kind, err)
		}
		if len(ownedKeys(store, k.kind)) != 0 {
			t.Errorf("%s: the owner was not forgotten", k.kind)
		}
	}
}

// Nothing is forwarded for a client that left before, and nothing is logged as a warning
// or error.
func TestClientHasLeft(t *testing.T) {
	t.Parallel()
	for _, op := range pendingOperations {
		store := storetest.NewMemory(time.Now)
		_, remember := remembering(t, store, "")
		r := newRig(t, "", remember)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		breakDown(store, ctx.Err())
		wantError(t, operations[op](ctx, r), &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second})
		r.wantTrace(t)
		if strings.Contains(r.log.String(), "level=WARN") || strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("%s: in the log is %s", op, r.log.String())
		}
	}
}
