// Package activation implements the gateway's side of the online activation of a phone. It
// keeps a registration with a generated activation password, runs the exchange of a Profile
// with the phone that knows this password, and returns the activation data encrypted for
// the phone.
//
// Clients without the password learn nothing, not even whether an identifier is registered.
// Identifiers that are unknown, expired, burned or without an exchange take the same path
// with a simulated credential, and every refusal is ErrRefused.
package activation

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Defaults of Config.
const (
	DefaultRegistrationLifetime = 10 * time.Minute
	DefaultHandshakeLifetime    = 2 * time.Minute
	DefaultMaxAttempts          = 3
	DefaultMaxActivations       = 3
)

// MaxAttemptsLimit is the greatest value of Config.MaxAttempts. NIST SP 800-63B, section
// 5.2.2, allows at most 100 failed attempts.
const MaxAttemptsLimit = 100

// The greatest values of Config.MaxActivations and Config.MaxExchanges, and the greatest number
// of profiles, whose names are labels of metrics.
const (
	maxActivations = 1000
	maxExchanges   = 100_000
	maxProfiles    = 8
)

// detachedTimeout limits store calls that must not end with the request.
const detachedTimeout = 5 * time.Second

// Errors of the Service. There is also ErrUnavailable, for a store that cannot be used and
// for a stored value that cannot be opened.
var (
	// ErrRefused is the error of every refusal. It does not say why.
	ErrRefused = errors.New("refused")
	// ErrUnknown is the ErrRefused of Locate, AdmitDevice and AdmitConfirmation for an
	// identifier that nobody registered. errors.Is reports true for both.
	ErrUnknown = fmt.Errorf("%w: unknown registration", ErrRefused)
	// ErrExists means that the identifier belongs to another registration.
	ErrExists = errors.New("registration exists")
	// ErrBusy means that too many exchanges are under way.
	ErrBusy = errors.New("too many exchanges")
	// ErrExpired means that the lifetime of a registration ended before it was stored.
	ErrExpired = errors.New("registration expired before it was stored")
)

// InvalidError is a value without the required form.
type InvalidError struct {
	// Member is the name of the value in the REST interface.
	Member string
	// Problem says what is wrong with the value, such as "is missing". It never contains
	// the value.
	Problem string
}

// Error returns the member and the problem.
func (e *InvalidError) Error() string { return e.Member + " " + e.Problem }

// Values of InvalidError.Member.
const (
	memberIdentifier = "registrationIdentifier"
	memberPublic     = "clientEphemeralPublicKey"
	memberEvidence   = "clientEvidenceMessage"
	memberProfile    = "profile"
)

// Config is the configuration of a Service.
type Config struct {
	// Open returns the store of registrations and handshakes, which it opens if necessary,
	// and the sealing keys. If only the keys fail, it returns the store with the error.
	// Every operation calls it once. It should return the same Keyring as long as the
	// store is open. Required.
	Open func(context.Context) (Store, *seal.Keyring, error)
	// Profiles are those that registrations and applications can have, with different names:
	// 1 to 8. The first is that of registrations and applications that name none.
	Profiles []Profile
	// RegistrationLifetime is how long a registration can be used, counted from
	// Registration.Started: 1 s to 24 h, 0 for the default.
	RegistrationLifetime time.Duration
	// HandshakeLifetime is the time between the two calls of an exchange: 1 s to 1 h,
	// 0 for the default.
	HandshakeLifetime time.Duration
	// MaxAttempts is how many wrong proofs burn a registration, and how many final calls
	// it admits. For KindAffinity it is how many calls to add a device, and how many final
	// calls, the authentication server may refuse. 1 to 100, 0 for the default.
	MaxAttempts int
	// MaxActivations is how many successful proofs a registration allows: 1 to 1000, 0
	// for the default.
	MaxActivations int
	// Password says how activation passwords are generated.
	Password PasswordRule
	// MaxExchanges is how many exchanges are computed at once: 1 to 100000, 0 for
	// GOMAXPROCS. Sixteen times as many may wait. Further ones fail with ErrBusy.
	MaxExchanges int
	// Logger gets details that clients must not learn; nil for no log.
	Logger *slog.Logger
	// Alarm is called for stored values that cannot be used; nil for no alarms.
	Alarm func(ctx context.Context, a seal.Alarm)
	// Observe is called at the end of each call of an exchange; nil for no call.
	Observe func(ctx context.Context, e StepEvent)
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Service is the gateway's side of online activations. It is safe for concurrent use.
type Service struct {
	opener               func(context.Context) (Store, *seal.Keyring, error)
	offers               []*offer
	registrationLifetime time.Duration
	handshakeLifetime    time.Duration
	maxAttempts          int
	maxActivations       int
	password             generator
	gate                 *gate
	logger               *slog.Logger
	alarm                func(ctx context.Context, a seal.Alarm)
	observe              func(ctx context.Context, e StepEvent)
	now                  func() time.Time

	simulation atomic.Pointer[simulation]
	prepared   sync.Once
}

// New returns a Service without opening store or keys. The error is an *option.Error for
// an invalid option.
func New(c Config) (*Service, error) {
	if c.Open == nil {
		return nil, errors.New("no store")
	}
	if err := c.checkProfiles(); err != nil {
		return nil, err
	}
	c.RegistrationLifetime = cmp.Or(c.RegistrationLifetime, DefaultRegistrationLifetime)
	c.HandshakeLifetime = cmp.Or(c.HandshakeLifetime, DefaultHandshakeLifetime)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, DefaultMaxAttempts)
	c.MaxActivations = cmp.Or(c.MaxActivations, DefaultMaxActivations)
	c.MaxExchanges = cmp.Or(c.MaxExchanges, runtime.GOMAXPROCS(0))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Alarm == nil {
		c.Alarm = func(context.Context, seal.Alarm) {}
	}
	if c.Observe == nil {
		c.Observe = func(context.Context, StepEvent) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	password, err := c.Password.generator()
	if err != nil {
		return nil, err
	}
	offers := make([]*offer, len(c.Profiles))
	for i, p := range c.Profiles {
		offers[i] = &offer{Profile: p}
	}
	return &Service{
		opener:               c.Open,
		offers:               offers,
		registrationLifetime: c.RegistrationLifetime,
		handshakeLifetime:    c.HandshakeLifetime,
		maxAttempts:          c.MaxAttempts,
		maxActivations:       c.MaxActivations,
		password:             password,
		gate:                 newGate(c.MaxExchanges),
		logger:               c.Logger,
		alarm:                c.Alarm,
		observe:              c.Observe,
		now:                  c.Now,
	}, nil
}

// checkProfiles returns an error unless each profile can be selected by its name.
func (c Config) checkProfiles() error {
	if len(c.Profiles) == 0 {
		return errors.New("no profile")
	}
	if len(c.Profiles) > maxProfiles {
		return option.Errorf("profiles", "must not have more than %d elements", maxProfiles)
	}
	for i, p := range c.Profiles {
		wrong := func(format string, args ...any) error {
			return option.Errorf(fmt.Sprintf("profiles[%d]", i), format, args...)
		}
		if _, err := form.Parse[form.ProfileName](p.Name()); err != nil {
			return wrong("has a name that %s", err)
		}
		for j, other := range c.Profiles[:i] {
			if p.Name() == other.Name() {
				return wrong("has the name %q, as [%d] has", p.Name(), j)
			}
		}
	}
	return nil
}

// check returns the first error of an option. The defaults are already set.
func (c Config) check() error {
	return cmp.Or(
		option.Duration("registration_lifetime", c.RegistrationLifetime, time.Second, 24*time.Hour),
		option.Duration("handshake_lifetime", c.HandshakeLifetime, time.Second, time.Hour),
		option.Number("max_attempts", c.MaxAttempts, 1, MaxAttemptsLimit),
		option.Number("max_activations", c.MaxActivations, 1, maxActivations),
		option.Number("max_exchanges", c.MaxExchanges, 0, maxExchanges),
	)
}

// Prepare computes what every exchange needs, which takes some milliseconds once in a
// process. It also makes sure that the store has a simulation secret, sealed with the first
// key. The first exchange would do the same, but after a rotation of the keys the secret
// must not stay sealed with an old key until then. The error wraps ErrUnavailable.
func (s *Service) Prepare(ctx context.Context) error {
	s.prepared.Do(func() {
		for _, o := range s.offers {
			o.Prepare(ctx, s.logger)
		}
	})
	v, err := s.open(ctx)
	if err != nil {
		return err
	}
	_, err = s.simulationSecret(ctx, v)
	return err
}

// Reserve makes sure that the store accepts a registration, and reserves room for it until
// release is called. The error wraps ErrUnavailable.
func (s *Service) Reserve(ctx context.Context) (release func(), err error) {
	v, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.simulationSecret(ctx, v); err != nil {
		return nil, err
	}
	release, err = v.store.Reserve(ctx)
	if err != nil {
		return nil, fmt.Errorf("reserving room in the store: %w", err)
	}
	return release, nil
}

// openStore is the store with the sealing keys.
type openStore struct {
	store Store
	ring  *seal.Keyring
}

func (s *Service) open(ctx context.Context) (openStore, error) {
	store, ring, err := s.opener(ctx)
	if err != nil {
		return openStore{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return openStore{store, ring}, nil
}

// unopenedError raises the alarm for a stored value that no key opens, and returns the error
// for it. Such a value is never treated as absent: otherwise whoever can damage the store
// could undo registrations and counters.
func (s *Service) unopenedError(ctx context.Context, identifier, what string) error {
	s.logger.ErrorContext(ctx, "stored value cannot be opened with any sealing key",
		slog.String("registration", identifier), slog.String("value", what))
	s.alarm(ctx, seal.Alarm{Event: seal.EventUnopened, Registration: identifier})
	return fmt.Errorf("%w: stored %s: %w", ErrUnavailable, what, seal.ErrUnopened)
}

// storeError returns the error of an operation for err of a store call. It raises the alarm
// if err means that the registration is damaged.
func (s *Service) storeError(ctx context.Context, identifier, what string, err error) error {
	if errors.Is(err, ErrDamaged) {
		s.logger.ErrorContext(ctx, "stored registration is damaged: it has a value that no gateway writes",
			slog.String("registration", identifier), slog.Any("error", err))
		s.alarm(ctx, seal.Alarm{Event: seal.EventDamaged, Registration: identifier})
	}
	return fmt.Errorf("%s: %w", what, err)
}

// detached returns a context for a store call that must be made even if the client has
// gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}

// random16 returns a new Generation or Token.
func random16() (b [16]byte) {
	rand.Read(b[:])
	return b
}
