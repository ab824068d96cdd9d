// Package activation performs the online activation of a phone on the gateway's
// side: it keeps a registration with a generated activation password, runs the
// exchange of a Profile with the phone that knows this password, and hands out the
// activation data sealed for it.
//
// Whoever does not know the password learns nothing, not even whether an
// identifier is registered: unknown, expired, burned and other identifiers without an
// exchange take the same path with a simulated credential, and every refusal is
// ErrRefused.
package activation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Defaults of Config.
const (
	DefaultRegistrationLifetime = 10 * time.Minute
	DefaultHandshakeLifetime    = 2 * time.Minute
	DefaultMaxAttempts          = 3
	DefaultMaxActivations       = 3
)

// MaxAttemptsLimit keeps guessing bounded whatever is configured; 100 failed
// attempts are what NIST SP 800-63B section 5.2.2 allows at most.
const MaxAttemptsLimit = 100

// detachedTimeout bounds store calls that must not end with the request.
const detachedTimeout = 5 * time.Second

// The events given to Config.Alarm.
const (
	// EventUnopened is a stored value that no sealing key opens.
	EventUnopened = "record_unopened"
	// EventDamaged is a registration for which the store says ErrDamaged.
	EventDamaged = "record_damaged"
)

// Errors of the Service. A store that cannot be used gives ErrUnavailable, as
// does a stored value that cannot be opened.
var (
	// ErrRefused is the one refusal. It never says why.
	ErrRefused = errors.New("refused")
	// ErrUnknown is the ErrRefused of Locate, AdmitDevice and AdmitConfirmation for
	// an identifier that nobody registered; errors.Is holds for both.
	ErrUnknown = fmt.Errorf("%w: unknown registration", ErrRefused)
	// ErrExists means that the identifier belongs to another registration.
	ErrExists = errors.New("registration exists")
	// ErrBusy means that too many exchanges are under way.
	ErrBusy = errors.New("too many exchanges")
	// ErrOverdue means that a registration's lifetime was over before it was stored.
	ErrOverdue = errors.New("registration lifetime is over")
)

// InvalidError is a value that was refused for its form.
type InvalidError struct {
	// Member is the name of the value in the REST interface.
	Member string
	// Problem says what is wrong with it, never the value: "is missing".
	Problem string
}

// Error returns member and problem.
func (e *InvalidError) Error() string { return e.Member + " " + e.Problem }

// Members named by InvalidError in the two calls of an exchange.
const (
	memberIdentifier = "registrationIdentifier"
	memberPublic     = "clientEphemeralPublicKey"
	memberEvidence   = "clientEvidenceMessage"
)

// Config is what a Service works with.
type Config struct {
	// Store keeps registrations and handshakes. Required.
	Store Store
	// Keyring returns the sealing keys. It is called on use, since a store may
	// have to be opened for them; it should return the same Keyring each time.
	// Required.
	Keyring func(context.Context) (*seal.Keyring, error)
	// Profiles are the exchanges that there are. New registrations have the first; the
	// others serve registrations that were made while they were. Required.
	Profiles []Profile
	// RegistrationLifetime counts from Registration.Started; 0 for the default.
	RegistrationLifetime time.Duration
	// HandshakeLifetime is the time between the two calls of an exchange; 0 for
	// the default.
	HandshakeLifetime time.Duration
	// MaxAttempts is how many wrong proofs burn a registration, and how many
	// final calls it admits. For KindAffinity it is how many device calls and how
	// many final calls the authentication server may refuse. 1 to 100, 0 for the
	// default.
	MaxAttempts int
	// MaxActivations is how many successful proofs a registration allows; 0 for
	// the default.
	MaxActivations int
	// Password tells how activation passwords are generated.
	Password PasswordRule
	// MaxExchanges is how many exchanges are computed at once; 0 for GOMAXPROCS.
	// Sixteen times as many may wait, further ones get ErrBusy.
	MaxExchanges int
	// Logger gets what only the operator may know; nil for no log.
	Logger *slog.Logger
	// Alarm is called with one of the events and the identifier of the registration,
	// which is empty if the value belongs to none; nil for no alarms.
	Alarm func(ctx context.Context, event string, identifier string)
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Service is the gateway's side of online activations. It is safe for
// concurrent use.
type Service struct {
	store                Store
	keyring              func(context.Context) (*seal.Keyring, error)
	profiles             profiles
	registrationLifetime time.Duration
	handshakeLifetime    time.Duration
	maxAttempts          int
	maxActivations       int
	password             generator
	gate                 *gate
	logger               *slog.Logger
	alarm                func(ctx context.Context, event string, identifier string)
	now                  func() time.Time

	simulation atomic.Pointer[simulation]
	decoy      atomic.Pointer[decoy]
	prepared   sync.Once
}

// New returns a Service. It uses neither store nor keys yet. The error names
// what is wrong with c.
func New(c Config) (*Service, error) {
	if c.Store == nil {
		return nil, errors.New("no store")
	}
	if c.Keyring == nil {
		return nil, errors.New("no sealing keys")
	}
	if len(c.Profiles) == 0 {
		return nil, errors.New("no profile")
	}
	if c.RegistrationLifetime == 0 {
		c.RegistrationLifetime = DefaultRegistrationLifetime
	}
	if c.HandshakeLifetime == 0 {
		c.HandshakeLifetime = DefaultHandshakeLifetime
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = DefaultMaxAttempts
	}
	if c.MaxActivations == 0 {
		c.MaxActivations = DefaultMaxActivations
	}
	if c.MaxExchanges == 0 {
		c.MaxExchanges = runtime.GOMAXPROCS(0)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Alarm == nil {
		c.Alarm = func(context.Context, string, string) {}
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
	return &Service{
		store:                c.Store,
		keyring:              c.Keyring,
		profiles:             c.Profiles,
		registrationLifetime: c.RegistrationLifetime,
		handshakeLifetime:    c.HandshakeLifetime,
		maxAttempts:          c.MaxAttempts,
		maxActivations:       c.MaxActivations,
		password:             password,
		gate:                 newGate(c.MaxExchanges),
		logger:               c.Logger,
		alarm:                c.Alarm,
		now:                  c.Now,
	}, nil
}

func (c Config) check() error {
	switch {
	case c.RegistrationLifetime < 0:
		return errors.New("registration lifetime is negative")
	case c.HandshakeLifetime < 0:
		return errors.New("handshake lifetime is negative")
	case c.MaxAttempts < 1 || c.MaxAttempts > MaxAttemptsLimit:
		return fmt.Errorf("maximum of attempts is %d, need 1 to %d", c.MaxAttempts, MaxAttemptsLimit)
	case c.MaxActivations < 1:
		return fmt.Errorf("maximum of activations is %d, need at least 1", c.MaxActivations)
	case c.MaxExchanges < 1:
		return fmt.Errorf("maximum of exchanges is %d, need at least 1", c.MaxExchanges)
	}
	return nil
}

// Prepare computes what every exchange needs, some milliseconds once in a
// process, and makes sure that the simulation secret is there and sealed with the
// first key. The first exchange would do the same; but a key that was replaced
// must not wait for one. The error wraps ErrUnavailable.
//
// The first call lets the profile of new registrations log what there is to know.
// Pending registrations of another may need arithmetic that is not prepared.
func (s *Service) Prepare(ctx context.Context) error {
	s.prepared.Do(func() { s.profiles[0].Prepare(ctx, s.logger) })
	ring, err := s.ring(ctx)
	if err != nil {
		return err
	}
	_, err = s.simulationSecret(ctx, ring)
	return err
}

// Reserve makes sure that a Register can be stored, and keeps room for it until release
// is called. The error wraps ErrUnavailable.
func (s *Service) Reserve(ctx context.Context) (release func(), err error) {
	ring, err := s.ring(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.simulationSecret(ctx, ring); err != nil {
		return nil, err
	}
	release, err = s.store.Reserve(ctx)
	if err != nil {
		return nil, fmt.Errorf("reserving room in the store: %w", err)
	}
	return release, nil
}

// ValidIdentifier reports whether s has the form of a registration identifier:
// 4 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'.
func ValidIdentifier(s string) bool {
	if len(s) < 4 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func checkIdentifier(s string) error {
	if s == "" {
		return &InvalidError{Member: memberIdentifier, Problem: "is missing"}
	}
	if !ValidIdentifier(s) {
		return &InvalidError{Member: memberIdentifier, Problem: "is not 4 to 64 letters, digits, dots, underscores and hyphens"}
	}
	return nil
}

func (s *Service) ring(ctx context.Context) (*seal.Keyring, error) {
	ring, err := s.keyring(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: sealing keys: %w", ErrUnavailable, err)
	}
	return ring, nil
}

// unopened raises the alarm for a stored value that no key opens. Such a value
// is never treated as absent: that would let whoever can spoil the store undo
// registrations and counters.
func (s *Service) unopened(ctx context.Context, identifier, what string) error {
	s.logger.ErrorContext(ctx, "stored value cannot be opened with any sealing key",
		slog.String("registration", identifier), slog.String("value", what))
	s.alarm(ctx, EventUnopened, identifier)
	return fmt.Errorf("%w: stored %s: %w", ErrUnavailable, what, seal.ErrUnopened)
}

// failed returns the error of a store call. It raises the alarm for a registration
// that is damaged.
func (s *Service) failed(ctx context.Context, identifier, what string, err error) error {
	if errors.Is(err, ErrDamaged) {
		s.logger.ErrorContext(ctx, "stored registration holds what no gateway writes",
			slog.String("registration", identifier), slog.Any("error", err))
		s.alarm(ctx, EventDamaged, identifier)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// detached returns a context for a store call that has to be made even though
// the client has gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}

// random16 returns a new Generation or Token.
func random16() (b [16]byte) {
	rand.Read(b[:])
	return b
}
