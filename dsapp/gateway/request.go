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
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
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
	// RequestMessage is a secure-channel message in upper-case hexadecimal digits.
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
	// Key is the plain key, or the key wrapped in a secure-channel message in
	// hexadecimal digits.
	Key form.Key
}

// CancelResult is empty.
type CancelResult struct{}

// requestKind is a kind of pending requests, with the three operations on them and the
// commands that these send.
type requestKind struct {
	kind       ownership.Kind
	retrieving Operation
	retrieve   soap.Command[soap.RetrieveRequest, soap.Retrieved]
	completing Operation
	complete   func(ctx context.Context, s Servers, instance string, r CompleteRequest) (soap.Authenticated, string, error)
	cancelling Operation
	cancel     soap.Command[soap.CancelRequest, soap.Done]
}

var logins = requestKind{
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

var signatures = requestKind{
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

// RetrieveLogin fetches a pending login. The first application to do so owns it. All
// others get the answer that it does not exist.
func (g *Gateway) RetrieveLogin(ctx context.Context, c Caller, r RetrieveRequest) (RetrieveResult, error) {
	return g.retrieve(ctx, c, logins, r)
}

// RetrieveSignature fetches a pending signature in the same way.
func (g *Gateway) RetrieveSignature(ctx context.Context, c Caller, r RetrieveRequest) (RetrieveResult, error) {
	return g.retrieve(ctx, c, signatures, r)
}

// CompleteLogin forwards the device's approval of a pending login to the instance
// that holds it. The authentication server decides who may approve, by the device's
// signature. If the store fails, the instance is chosen by the policy. The operation
// is then a Failure of kind Unavailable if that instance does not have the login and
// another one may have it.
func (g *Gateway) CompleteLogin(ctx context.Context, c Caller, r CompleteRequest) (AuthenticatedResult, error) {
	return g.complete(ctx, c, logins, r)
}

// CompleteSignature forwards the device's signature for a pending signature in
// the same way.
func (g *Gateway) CompleteSignature(ctx context.Context, c Caller, r CompleteRequest) (AuthenticatedResult, error) {
	return g.complete(ctx, c, signatures, r)
}

// CancelLogin forwards the rejection of a pending login to the instance that holds
// it. It is refused if somebody else is known to own the login, or if the key is
// plain and plain keys are refused. It fails if the key is plain and the store cannot
// be asked for the owner.
func (g *Gateway) CancelLogin(ctx context.Context, c Caller, r CancelRequest) (CancelResult, error) {
	return g.cancel(ctx, c, logins, r)
}

// CancelSignature forwards the rejection of a pending signature in the same way.
func (g *Gateway) CancelSignature(ctx context.Context, c Caller, r CancelRequest) (CancelResult, error) {
	return g.cancel(ctx, c, signatures, r)
}

func (g *Gateway) retrieve(ctx context.Context, c Caller, q requestKind, r RetrieveRequest) (_ RetrieveResult, err error) {
	defer func() { g.logFailure(ctx, q.retrieving, err) }()
	return once(ctx, g, c, q.retrieving, AuditEvent{Subject: form.Subject{SerialNumber: string(r.SerialNumber)}},
		repeat.Request{Place: string(r.Key), Members: []string{string(r.SerialNumber)}},
		func(ctx context.Context) (RetrieveResult, error) { return g.retrieveOnce(ctx, c, q, r) })
}

func (g *Gateway) retrieveOnce(ctx context.Context, c Caller, q requestKind, r RetrieveRequest) (RetrieveResult, error) {
	op := q.retrieving
	d, err := g.ownership.Retrieving(ctx, q.kind, r.Key)
	ctx, found := goOn(ctx)
	if found != nil {
		return RetrieveResult{}, found
	}
	if err := g.reportDecision(ctx, op, d, err); err != nil {
		return RetrieveResult{}, err
	}
	retrieved, instance, err := authserver.Call(ctx, g.servers, authserver.Target{Search: true}, q.retrieve,
		soap.RetrieveRequest{SerialNumber: r.SerialNumber, Key: r.Key})
	if err != nil {
		return RetrieveResult{}, fromServer(err)
	}
	// The server gives a request out once, so the caller owns it even if the message
	// turns out to be unusable.
	owner := ownership.Owner{Application: c.Application, SerialNumber: string(r.SerialNumber), Instance: instance}
	if err := g.recordOwner(ctx, c, op, q.kind, r.Key, owner); err != nil {
		return RetrieveResult{}, err
	}
	request, err := parseMessage[form.RequestMessage](retrieved.RequestMessage)
	if err != nil {
		return RetrieveResult{}, badAnswerf("request message of instance %q %w", instance, err)
	}
	g.audit(ctx, c, op, AuditEvent{Action: AuditRetrieved, Subject: form.Subject{SerialNumber: string(r.SerialNumber), Instance: instance}})
	return RetrieveResult{RequestMessage: string(request)}, nil
}

// recordOwner stores o as the owner of a request that an authentication server gave out.
// It returns a *Refusal if another caller owns it already. Failing to store the owner is
// reported, not returned: the server gives the request to nobody else.
func (g *Gateway) recordOwner(ctx context.Context, c Caller, op Operation, kind ownership.Kind, key form.PlainKey, o ownership.Owner) error {
	won, err := g.ownership.RecordOwner(ctx, kind, key, o)
	switch {
	case err != nil:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictUnowned})
		g.logger.LogAttrs(ctx, slog.LevelError, "the owner of a request could not be stored",
			slog.String("operation", string(op)), slog.String("instance", o.Instance), slog.Any("error", err))
	case !won:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictLost})
		g.logger.LogAttrs(ctx, slog.LevelWarn, "the authentication server gave a request out twice; the second device did not get it",
			slog.String("operation", string(op)), slog.String("instance", o.Instance))
		g.audit(ctx, c, op, AuditEvent{Action: AuditRequestLost, Subject: form.Subject{SerialNumber: o.SerialNumber, Instance: o.Instance}})
		return &Refusal{Codes: notFoundCodes}
	default:
		g.decided(ctx, OwnershipEvent{Operation: op, Verdict: VerdictClaimed})
	}
	return nil
}

func (g *Gateway) complete(ctx context.Context, c Caller, q requestKind, r CompleteRequest) (_ AuthenticatedResult, err error) {
	defer func() { g.logFailure(ctx, q.completing, err) }()
	return once(ctx, g, c, q.completing, AuditEvent{Subject: form.Subject{UserID: string(r.UserID), Domain: string(r.Domain)}},
		repeat.Request{Place: string(r.Key), Members: []string{string(r.UserID), string(r.Domain), string(r.Signature)}},
		func(ctx context.Context) (AuthenticatedResult, error) { return g.completeOnce(ctx, c, q, r) })
}

func (g *Gateway) completeOnce(ctx context.Context, c Caller, q requestKind, r CompleteRequest) (AuthenticatedResult, error) {
	op := q.completing
	d, err := g.ownership.Completing(ctx, q.kind, r.Key)
	ctx, found := goOn(ctx)
	if found != nil {
		return AuthenticatedResult{}, found
	}
	if err := g.reportDecision(ctx, op, d, err); err != nil {
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
	g.forgetOwner(ctx, op, d)
	g.audit(ctx, c, op, authenticatedEvent(AuditCompleted, r.UserID, r.Domain, a, instance))
	return authenticated(a), nil
}

// completionError converts the error of an authentication server about a completion.
// The completion was sent to one instance only. If the gateway could not look up which
// instance holds the request, "not found" of this one does not mean that the request
// does not exist.
func (g *Gateway) completionError(kind ownership.Kind, d ownership.Decision, err error) error {
	refusal, refused := errors.AsType[*authserver.Refusal](err)
	if refused && refusal.Codes.StatusCodeEnum == notFoundCodes.StatusCodeEnum && d.StoreErr != nil && g.servers.Replicated() {
		return &Failure{Kind: Unavailable, RetryAfter: retryUnavailable, Err: fmt.Errorf(
			"instance %q does not have the request, which may be on another one: %w", refusal.Instance, d.StoreErr)}
	}
	if kind == ownership.Login {
		return g.loginError(err, true)
	}
	return fromServer(err)
}

func (g *Gateway) cancel(ctx context.Context, c Caller, q requestKind, r CancelRequest) (_ CancelResult, err error) {
	defer func() { g.logFailure(ctx, q.cancelling, err) }()
	place := string(r.Key)
	if r.Key.Wrapped() {
		r.Key = form.Key(strings.ToUpper(string(r.Key)))
		place = string(r.SerialNumber)
	}
	return once(ctx, g, c, q.cancelling, AuditEvent{Subject: form.Subject{SerialNumber: string(r.SerialNumber)}},
		repeat.Request{Place: place, Members: []string{string(r.SerialNumber), string(r.Key)}},
		func(ctx context.Context) (CancelResult, error) { return g.cancelOnce(ctx, c, q, r) })
}

func (g *Gateway) cancelOnce(ctx context.Context, c Caller, q requestKind, r CancelRequest) (CancelResult, error) {
	op := q.cancelling
	event := AuditEvent{Action: AuditCancelRefused, Subject: form.Subject{SerialNumber: string(r.SerialNumber)}}
	d, err := g.ownership.Cancelling(ctx, q.kind, r.Key, ownership.Caller{Application: c.Application, SerialNumber: string(r.SerialNumber)})
	ctx, found := goOn(ctx)
	if found != nil {
		return CancelResult{}, found
	}
	if err := g.reportDecision(ctx, op, d, err); err != nil {
		return CancelResult{}, g.auditRefusal(ctx, c, op, event, err)
	}
	// Which of the device's requests a wrapped key means, and so the instance, is not
	// known.
	to := authserver.Target{Instances: d.Instances, Search: r.Key.Wrapped()}
	_, instance, err := authserver.Call(ctx, g.servers, to, q.cancel, soap.CancelRequest{SerialNumber: r.SerialNumber, KeyMessage: r.Key})
	if err != nil {
		event.Instance = instanceOf(err)
		return CancelResult{}, g.auditRefusal(ctx, c, op, event, fromServer(err))
	}
	g.forgetOwner(ctx, op, d)
	event.Action, event.Instance = AuditCancelled, instance
	g.audit(ctx, c, op, event)
	return CancelResult{}, nil
}

// reportDecision reports a decision about a pending request. It returns nil if the call
// is to be forwarded, otherwise the error of the operation.
func (g *Gateway) reportDecision(ctx context.Context, op Operation, d ownership.Decision, err error) error {
	if err != nil {
		return fromOwnership(err)
	}
	g.decided(ctx, OwnershipEvent{Operation: op, Verdict: verdictOf(d)})
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

// verdictOf returns the verdict that is reported for a decision.
func verdictOf(d ownership.Decision) Verdict {
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

// forgetOwner removes the owner of a request that was completed or cancelled.
func (g *Gateway) forgetOwner(ctx context.Context, op Operation, d ownership.Decision) {
	g.logCleanup(ctx, op, "forgetting the owner of a request", g.ownership.Release(ctx, d))
}
