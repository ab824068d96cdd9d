package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// RetrieveRequest fetches a pending login or signature.
type RetrieveRequest struct {
	// SerialNumber of the device that asks.
	SerialNumber form.SerialNumber
	// Key is the plain challenge key or request key.
	Key form.PlainKey
}

// RetrieveResult is a pending request.
type RetrieveResult struct {
	// RequestMessage is a secure-channel message in upper-case hex.
	RequestMessage string
}

// CompleteRequest completes a pending login or signature.
type CompleteRequest struct {
	UserID form.UserID
	Domain form.Domain // optional
	// Key is the plain challenge key or request key.
	Key form.PlainKey
	// Signature of the device over the request.
	Signature form.Signature
}

// CancelRequest rejects a pending login or signature.
type CancelRequest struct {
	// SerialNumber of the device that retrieved the request.
	SerialNumber form.SerialNumber
	// Key is the plain key, or the key wrapped in a secure-channel message in hex.
	Key form.Key
}

// CancelResult is empty.
type CancelResult struct{}

// requests is one kind of pending requests, with the three operations on them and
// the commands that these take.
type requests struct {
	kind       ownership.Kind
	retrieving Operation
	retrieve   soap.Command[soap.RetrieveRequest, soap.Retrieved]
	completing Operation
	complete   func(ctx context.Context, s Servers, instance string, r CompleteRequest) (soap.Authenticated, string, error)
	cancelling Operation
	cancel     soap.Command[soap.CancelRequest, soap.Done]
}

var logins = requests{
	kind:       ownership.Login,
	retrieving: OpRetrieveLogin,
	retrieve:   soap.GetPreparedSecureChallenge,
	completing: OpCompleteLogin,
	complete: func(ctx context.Context, s Servers, instance string, r CompleteRequest) (soap.Authenticated, string, error) {
		return authserver.Call(ctx, s, authserver.At(instance), soap.AuthUser,
			soap.AuthUserRequest{UserID: r.UserID, Domain: r.Domain, ChallengeKey: r.Key, Password: string(r.Signature)})
	},
	cancelling: OpCancelLogin,
	cancel:     soap.CancelAuthUser,
}

var signatures = requests{
	kind:       ownership.Signature,
	retrieving: OpRetrieveSignature,
	retrieve:   soap.GetPreparedSignatureRequest,
	completing: OpCompleteSignature,
	complete: func(ctx context.Context, s Servers, instance string, r CompleteRequest) (soap.Authenticated, string, error) {
		return authserver.Call(ctx, s, authserver.At(instance), soap.AuthSignature,
			soap.AuthSignatureRequest{UserID: r.UserID, Domain: r.Domain, RequestKey: r.Key, Signature: r.Signature})
	},
	cancelling: OpCancelSignature,
	cancel:     soap.CancelAuthSignatureRequest,
}

// RetrieveLogin fetches a pending login. The first application to do so owns it:
// everyone else is told that it does not exist.
func (g *Gateway) RetrieveLogin(ctx context.Context, c Caller, r RetrieveRequest) (RetrieveResult, error) {
	return g.retrieve(ctx, c, logins, r)
}

// RetrieveSignature fetches a pending signature in the same way.
func (g *Gateway) RetrieveSignature(ctx context.Context, c Caller, r RetrieveRequest) (RetrieveResult, error) {
	return g.retrieve(ctx, c, signatures, r)
}

// CompleteLogin forwards the device's approval of a pending login to the instance
// that holds it. Who may approve is for the authentication server to decide, by
// the device's signature. If the store cannot be asked which instance it is, and
// the one that the policy chose does not have the login while another may, the
// operation is a Failure that is Unavailable.
func (g *Gateway) CompleteLogin(ctx context.Context, c Caller, r CompleteRequest) (AuthenticatedResult, error) {
	return g.complete(ctx, c, logins, r)
}

// CompleteSignature forwards the device's signature for a pending signature in
// the same way.
func (g *Gateway) CompleteSignature(ctx context.Context, c Caller, r CompleteRequest) (AuthenticatedResult, error) {
	return g.complete(ctx, c, signatures, r)
}

// CancelLogin forwards the rejection of a pending login to the instance that
// holds it, unless the request is known not to be the caller's, or the key is plain
// and plain keys are refused or the store cannot be asked whose it is.
func (g *Gateway) CancelLogin(ctx context.Context, c Caller, r CancelRequest) (CancelResult, error) {
	return g.cancel(ctx, c, logins, r)
}

// CancelSignature forwards the rejection of a pending signature in the same way.
func (g *Gateway) CancelSignature(ctx context.Context, c Caller, r CancelRequest) (CancelResult, error) {
	return g.cancel(ctx, c, signatures, r)
}

func (g *Gateway) retrieve(ctx context.Context, c Caller, q requests, r RetrieveRequest) (_ RetrieveResult, err error) {
	op := q.retrieving
	defer func() { g.logFailure(ctx, op, err) }()
	d, err := g.ownership.Retrieving(ctx, q.kind, r.Key)
	if err := g.judge(ctx, op, d, err); err != nil {
		return RetrieveResult{}, err
	}
	retrieved, instance, err := authserver.Call(ctx, g.servers, authserver.Target{Search: true}, q.retrieve,
		soap.RetrieveRequest{SerialNumber: r.SerialNumber, Key: r.Key})
	if err != nil {
		return RetrieveResult{}, serverError(err)
	}
	// The key is used up, whatever the message is worth.
	owner := ownership.Owner{Application: c.Application, SerialNumber: string(r.SerialNumber), Instance: instance}
	if err := g.claim(ctx, c, op, q.kind, r.Key, owner); err != nil {
		return RetrieveResult{}, err
	}
	request, err := message[form.RequestMessage](retrieved.RequestMessage)
	if err != nil {
		return RetrieveResult{}, badAnswer("request message of instance %q %w", instance, err)
	}
	g.audit(ctx, c, op, AuditEvent{Action: AuditRetrieved, Subject: form.Subject{SerialNumber: string(r.SerialNumber), Instance: instance}})
	return RetrieveResult{RequestMessage: string(request)}, nil
}

// claim makes o the owner of a request that an authentication server gave out. The
// error is the refusal for whom another was faster. That no owner could be kept is
// reported and no error: the server gives the request to nobody else.
func (g *Gateway) claim(ctx context.Context, c Caller, op Operation, kind ownership.Kind, key form.PlainKey, o ownership.Owner) error {
	won, err := g.ownership.RecordOwner(ctx, kind, key, o)
	switch {
	case err != nil:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictUnowned})
		g.logger.LogAttrs(ctx, slog.LevelError, "the owner of a request could not be kept",
			slog.String("operation", string(op)), slog.String("instance", o.Instance), slog.Any("error", err))
	case !won:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictLost})
		g.logger.LogAttrs(ctx, slog.LevelWarn, "a request was given out twice; it was kept from the second device",
			slog.String("operation", string(op)), slog.String("instance", o.Instance))
		g.audit(ctx, c, op, AuditEvent{Action: AuditRequestLost, Subject: form.Subject{SerialNumber: o.SerialNumber, Instance: o.Instance}})
		return &Refusal{Codes: notFoundCodes}
	default:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictClaimed})
	}
	return nil
}

func (g *Gateway) complete(ctx context.Context, c Caller, q requests, r CompleteRequest) (_ AuthenticatedResult, err error) {
	op := q.completing
	defer func() { g.logFailure(ctx, op, err) }()
	d, err := g.ownership.Completing(ctx, q.kind, r.Key)
	if err := g.judge(ctx, op, d, err); err != nil {
		return AuthenticatedResult{}, err
	}
	instance := ""
	if len(d.Instances) > 0 {
		instance = d.Instances[0]
	}
	a, instance, err := q.complete(ctx, g.servers, instance, r)
	if err != nil {
		event := authenticatedEvent(AuditCompletionRefused, r.UserID, r.Domain, soap.Authenticated{}, instanceOf(err))
		return AuthenticatedResult{}, g.auditRefusal(ctx, c, op, event, g.completionError(q.kind, d, err))
	}
	g.release(ctx, op, d)
	g.audit(ctx, c, op, authenticatedEvent(AuditCompleted, r.UserID, r.Domain, a, instance))
	return authenticated(a), nil
}

// completionError turns an authentication server's error about a completion into
// one of this package. Only one instance is given a completion: if it is not known
// to hold the request, and another may, that it does not is no answer.
func (g *Gateway) completionError(kind ownership.Kind, d ownership.Decision, err error) error {
	refusal, refused := errors.AsType[*authserver.Refusal](err)
	if refused && refusal.Codes.StatusCodeEnum == notFoundCodes.StatusCodeEnum && d.StoreErr != nil && g.servers.Replicated() {
		return &Failure{Kind: Unavailable, RetryAfter: retryUnavailable, Err: fmt.Errorf(
			"instance %q does not have the request, which may be on another one: %w", refusal.Instance, d.StoreErr)}
	}
	if kind == ownership.Login {
		return g.loginError(err, true)
	}
	return serverError(err)
}

func (g *Gateway) cancel(ctx context.Context, c Caller, q requests, r CancelRequest) (_ CancelResult, err error) {
	op := q.cancelling
	defer func() { g.logFailure(ctx, op, err) }()
	wrapped := r.Key.Wrapped()
	if wrapped {
		r.Key = form.Key(strings.ToUpper(string(r.Key)))
	}
	event := AuditEvent{Action: AuditCancelRefused, Subject: form.Subject{SerialNumber: string(r.SerialNumber)}}
	d, err := g.ownership.Cancelling(ctx, q.kind, r.Key, ownership.Caller{Application: c.Application, SerialNumber: string(r.SerialNumber)})
	if err := g.judge(ctx, op, d, err); err != nil {
		return CancelResult{}, g.auditRefusal(ctx, c, op, event, err)
	}
	// A wrapped key does not tell which request it means.
	to := authserver.Target{Instances: d.Instances, Search: wrapped}
	_, instance, err := authserver.Call(ctx, g.servers, to, q.cancel, soap.CancelRequest{SerialNumber: r.SerialNumber, KeyMessage: r.Key})
	if err != nil {
		event.Instance = instanceOf(err)
		return CancelResult{}, g.auditRefusal(ctx, c, op, event, serverError(err))
	}
	g.release(ctx, op, d)
	event.Action, event.Instance = AuditCancelled, instance
	g.audit(ctx, c, op, event)
	return CancelResult{}, nil
}

// judge reports a decision about a pending request. It returns nil if the call is
// to be forwarded, otherwise the operation's error.
func (g *Gateway) judge(ctx context.Context, op Operation, d ownership.Decision, err error) error {
	if err != nil {
		return ownershipError(err)
	}
	g.decided(ctx, OwnershipEvent{Operation: op, Verdict: verdict(d)})
	if d.StoreErr != nil {
		g.logger.LogAttrs(ctx, slog.LevelWarn, "forwarding a request without knowing its owner",
			slog.String("operation", string(op)), slog.Any("error", d.StoreErr))
	}
	switch d.Verdict {
	case ownership.Forward:
		return nil
	case ownership.AlreadyOwned:
		return &Refusal{Codes: notFoundCodes}
	default:
		return &Refusal{Codes: g.noSupportCodes}
	}
}

// verdict is what is told of a decision.
func verdict(d ownership.Decision) Verdict {
	switch {
	case d.StoreErr != nil:
		return VerdictBlind
	case d.Verdict == ownership.AlreadyOwned:
		return VerdictAlreadyOwned
	case d.Verdict == ownership.Forward && d.Known:
		return VerdictOwned
	case d.Verdict == ownership.Forward:
		return VerdictUnknown
	case d.Verdict == ownership.PlainKey:
		return VerdictRefusedPlain
	case d.Known:
		return VerdictForeign
	default:
		return VerdictRefusedUnknown
	}
}

// release forgets the owner of a request that is over.
func (g *Gateway) release(ctx context.Context, op Operation, d ownership.Decision) {
	g.tolerated(ctx, op, "forgetting the owner of a request", g.ownership.Release(ctx, d))
}
