// Package gateway implements the operations behind the REST services on typed
// values. It knows neither HTTP nor JSON nor the encoding of SOAP.
//
// The error of every operation is a *Refusal, an *InvalidError or a *Failure.
package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Activation keeps registrations and carries out the activation exchange.
// ReturnDevice, ReturnConfirmation and Complete also work with a context that has
// ended.
type Activation interface {
	// Profile returns the name of the profile of a registration that asks for this one.
	Profile(name form.ProfileName) (string, error)
	Reserve(ctx context.Context) (release func(), err error)
	Register(ctx context.Context, r activation.Registration) (activation.Registered, error)
	Begin(ctx context.Context, identifier form.Identifier, clientPublic form.ClientPublic, from activation.Origin) (activation.Challenge, error)
	Prove(ctx context.Context, identifier form.Identifier, evidence form.ClientEvidence, from activation.Origin) (activation.Proof, error)
	Locate(ctx context.Context, identifier form.Identifier) (activation.Admission, error)
	AdmitDevice(ctx context.Context, identifier form.Identifier) (activation.Admission, error)
	ReturnDevice(ctx context.Context, a activation.Admission) error
	AdmitConfirmation(ctx context.Context, identifier form.Identifier, kinds ...activation.Kind) (activation.Admission, error)
	ReturnConfirmation(ctx context.Context, a activation.Admission) error
	Complete(ctx context.Context, a activation.Admission) error
}

// Ownership remembers who retrieved which pending request. RecordOwner and Release
// also work with a context that has ended.
type Ownership interface {
	Retrieving(ctx context.Context, kind ownership.Kind, key form.PlainKey) (ownership.Decision, error)
	Completing(ctx context.Context, kind ownership.Kind, key form.PlainKey) (ownership.Decision, error)
	Cancelling(ctx context.Context, kind ownership.Kind, key form.Key, c ownership.Caller) (ownership.Decision, error)
	RecordOwner(ctx context.Context, kind ownership.Kind, key form.PlainKey, o ownership.Owner) (won bool, err error)
	Release(ctx context.Context, d ownership.Decision) error
}

// Servers are the authentication servers.
type Servers interface {
	authserver.Sender
	// Replicated reports whether there are several instances, each with pending
	// requests that the others do not have.
	Replicated() bool
}

var (
	_ Activation = (*activation.Service)(nil)
	_ Ownership  = (*ownership.Service)(nil)
	_ Servers    = (*authserver.Servers)(nil)
)

// Operation names one operation.
type Operation string

// The operations.
const (
	OpRegisterActivation     Operation = "register_activation"
	OpRegisterOffline        Operation = "register_offline"
	OpGenerateEphemeralKey   Operation = "generate_ephemeral_key"
	OpGenerateActivationData Operation = "generate_activation_data"
	OpAddDevice              Operation = "add_device"
	OpActivate               Operation = "activate"
	OpServerTime             Operation = "server_time"
	OpActivateStandard       Operation = "activate_standard"
	OpAuthenticate           Operation = "authenticate"
	OpRetrieveLogin          Operation = "retrieve_login"
	OpCompleteLogin          Operation = "complete_login"
	OpCancelLogin            Operation = "cancel_login"
	OpRetrieveSignature      Operation = "retrieve_signature"
	OpCompleteSignature      Operation = "complete_signature"
	OpCancelSignature        Operation = "cancel_signature"
	OpUpdateNotificationID   Operation = "update_notification_id"
)

// Caller is the client that calls an operation.
type Caller struct {
	// Application is the name of the application whose key came with the request.
	Application string
	// BackEnd says that this is a back-end application.
	BackEnd bool
	// Profile is the name of the profile of a front-end application. It is empty with
	// ExchangeRelay.
	Profile string
	// Source is the client address in the form in which rate limits count it.
	Source string
	// IdempotencyKey names a call that registers, so that the client can repeat it; empty for
	// none. Other operations ignore it.
	IdempotencyKey form.IdempotencyKey
	// Body is the SHA-256 hash of the request's body, if there is an IdempotencyKey.
	Body [sha256.Size]byte
}

// withPriority returns a context with which commands may use the connections that are
// reserved for back ends, if the caller is one.
func (c Caller) withPriority(ctx context.Context) context.Context {
	if c.BackEnd {
		return authserver.ForBackEnd(ctx)
	}
	return ctx
}

// origin returns where a call of an activation exchange comes from.
func (c Caller) origin() activation.Origin {
	return activation.Origin{Address: c.Source, Application: c.Application, Profile: c.Profile}
}

// UnknownRegistrations says what to do with a registration identifier that the
// gateway does not know. It applies to adding a device, to completing an activation
// and to every call of a relayed exchange.
type UnknownRegistrations string

// The values of UnknownRegistrations.
const (
	// RefuseUnknown answers as if the identifier were known and its exchange not done.
	RefuseUnknown UnknownRegistrations = "refuse"
	// ForwardUnknown lets an authentication server decide.
	ForwardUnknown UnknownRegistrations = "forward"
)

// Exchange says who carries out the activation exchange with the phone.
type Exchange string

// The values of Exchange.
const (
	// ExchangeGateway has the gateway carry out the exchange.
	ExchangeGateway Exchange = "gateway"
	// ExchangeRelay forwards the calls of the phone to an authentication server.
	ExchangeRelay Exchange = "relay"
)

const (
	// defaultNoSupport is the default of Config.NoSupportCode.
	defaultNoSupport = -1
	// maxGatewayID is the greatest length of Config.GatewayID in characters.
	maxGatewayID = 255
)

// Config is the configuration of a Gateway.
type Config struct {
	Activation Activation
	Ownership  Ownership
	Servers    Servers
	// Repeats gives repeated calls their first answer; nil for none.
	Repeats Repeats
	// Keys gives registrations with idempotency keys their first answer; nil to ignore keys.
	Keys Keys
	// Exchange is ExchangeGateway if empty.
	Exchange Exchange
	// GatewayID is the last field of every activation image, unless the
	// authentication server of a relayed exchange gives another. It has at most 255
	// characters, without semicolons and control characters, and may be empty.
	GatewayID string
	// UnknownRegistrations is RefuseUnknown if empty, with ExchangeRelay ForwardUnknown.
	UnknownRegistrations UnknownRegistrations
	// HideUnknownUsers replaces the status with which the authentication server refuses
	// a one-time password or the approval of a login by a single one, because the
	// server's statuses tell which users exist. Two statuses are relayed all the same:
	// that there is no such login, and that the server itself does not work. The audit
	// event always has the server's status.
	HideUnknownUsers bool
	// NoSupportCode is the status code of STAT_NOSUPPORT, with which the gateway itself
	// refuses to cancel a request. The vendor does not publish the number. It is -1 if
	// nil, and must not be 0, which stands for success.
	NoSupportCode *int32
	// Decided is called for every decision about a pending request, and again with the
	// result of recording the owner of a retrieved one. Decided and Audit are called
	// concurrently and must not block. Decided may be nil.
	Decided func(ctx context.Context, e OwnershipEvent)
	// Repeated is called for every call that came before. It is called concurrently and must
	// not block. It may be nil.
	Repeated func(ctx context.Context, e RepeatEvent)
	// Audit is called for every event that belongs in an audit trail. It may be nil.
	Audit func(ctx context.Context, e AuditEvent)
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Now is time.Now if nil.
	Now func() time.Time
}

// Gateway carries out the operations. It is safe for concurrent use.
type Gateway struct {
	activation       Activation
	ownership        Ownership
	servers          Servers
	repeats          Repeats
	keys             Keys
	relay            bool
	gatewayID        string
	forwardUnknown   bool
	hideUnknownUsers bool
	noSupportCodes   ResultCodes
	decided          func(context.Context, OwnershipEvent)
	repeated         func(context.Context, RepeatEvent)
	audited          func(context.Context, AuditEvent)
	logger           *slog.Logger
	now              func() time.Time
}

// New returns a Gateway. The error names the member of c that is missing, or is an
// *option.Error for an invalid option.
func New(c Config) (*Gateway, error) {
	if c.Activation == nil {
		return nil, errors.New("activation: missing")
	}
	if c.Ownership == nil {
		return nil, errors.New("ownership: missing")
	}
	if c.Servers == nil {
		return nil, errors.New("servers: missing")
	}
	c.Exchange = cmp.Or(c.Exchange, ExchangeGateway)
	if c.UnknownRegistrations == "" {
		c.UnknownRegistrations = RefuseUnknown
		if c.Exchange == ExchangeRelay {
			c.UnknownRegistrations = ForwardUnknown
		}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	noSupport := defaultNoSupport
	if c.NoSupportCode != nil {
		noSupport = int(*c.NoSupportCode)
	}
	g := &Gateway{
		activation:       c.Activation,
		ownership:        c.Ownership,
		servers:          c.Servers,
		repeats:          c.Repeats,
		keys:             c.Keys,
		relay:            c.Exchange == ExchangeRelay,
		gatewayID:        c.GatewayID,
		forwardUnknown:   c.UnknownRegistrations == ForwardUnknown,
		hideUnknownUsers: c.HideUnknownUsers,
		noSupportCodes:   soap.FailureCodes("STAT_NOSUPPORT", noSupport),
		decided:          c.Decided,
		repeated:         c.Repeated,
		audited:          c.Audit,
		logger:           c.Logger,
		now:              c.Now,
	}
	if g.decided == nil {
		g.decided = func(context.Context, OwnershipEvent) {}
	}
	if g.repeated == nil {
		g.repeated = func(context.Context, RepeatEvent) {}
	}
	if g.audited == nil {
		g.audited = func(context.Context, AuditEvent) {}
	}
	if g.logger == nil {
		g.logger = slog.Default()
	}
	if g.now == nil {
		g.now = time.Now
	}
	return g, nil
}

// check returns the first error of an option.
func (c Config) check() error {
	if utf8.RuneCountInString(c.GatewayID) > maxGatewayID {
		return option.Errorf("gateway_id", "must have at most %d characters", maxGatewayID)
	}
	if problem := form.ImageFieldProblem(c.GatewayID); problem != "" {
		return option.Errorf("gateway_id", "%s", problem)
	}
	if c.NoSupportCode != nil && *c.NoSupportCode == 0 {
		return option.Errorf("STAT_NOSUPPORT", "must not be 0, which stands for success")
	}
	return cmp.Or(
		option.Either("exchange", c.Exchange, ExchangeGateway, ExchangeRelay),
		option.Either("unknown", c.UnknownRegistrations, RefuseUnknown, ForwardUnknown),
	)
}

// ServerTimeRequest asks for the time.
type ServerTimeRequest struct{}

// ServerTimeResult is the time of the gateway's clock.
type ServerTimeResult struct {
	// Time is in seconds since the Unix epoch.
	Time int64
}

// ServerTime returns the time of the gateway's own clock.
func (g *Gateway) ServerTime(ctx context.Context, _ Caller, _ ServerTimeRequest) (_ ServerTimeResult, err error) {
	defer func() { g.logFailure(ctx, OpServerTime, err) }()
	return ServerTimeResult{Time: g.now().Unix()}, nil
}

// logFailure logs err if it is a *Failure.
func (g *Gateway) logFailure(ctx context.Context, op Operation, err error) {
	failure, ok := errors.AsType[*Failure](err)
	if !ok {
		return
	}
	level := slog.LevelWarn
	switch {
	case ctx.Err() != nil:
		// The client closed its connection: the failure is a consequence of that.
		level = slog.LevelDebug
	case breaker.IsOpen(err):
		// The breaker logged that it opened.
		level = slog.LevelDebug
	case failure.Kind == UnderWay || failure.Kind == KeyReused:
		// The client is told what is wrong.
		level = slog.LevelDebug
	case failure.Kind == Internal:
		level = slog.LevelError
	}
	g.logger.LogAttrs(ctx, level, "operation failed",
		slog.String("operation", string(op)), slog.String("kind", string(failure.Kind)), slog.Any("error", failure.Err))
}

// logCleanup logs the error of a step that follows the outcome of an operation and does
// not change its answer. The text what names the step, the attributes its object.
func (g *Gateway) logCleanup(ctx context.Context, op Operation, what string, err error, attributes ...slog.Attr) {
	if err == nil {
		return
	}
	g.logger.LogAttrs(ctx, slog.LevelError, what+" failed",
		append(attributes, slog.String("operation", string(op)), slog.Any("error", err))...)
}

// auditRefusal audits e if err is a *Refusal, and returns err.
func (g *Gateway) auditRefusal(ctx context.Context, c Caller, op Operation, e AuditEvent, err error) error {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		e.Status = refusal.Status()
		g.audit(ctx, c, op, e)
	}
	return err
}

// audit adds operation and application to the event and passes it to Config.Audit.
func (g *Gateway) audit(ctx context.Context, c Caller, op Operation, e AuditEvent) {
	e.Operation, e.Application = op, c.Application
	g.audited(ctx, e.truncated())
}
