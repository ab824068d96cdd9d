// Package ownership remembers which application and device retrieved a pending login or
// signature, and which instance of the authentication server holds it. The first
// application to retrieve a request owns it: only this application may cancel it, and
// later calls about it go to the instance that holds it.
//
// The store is a cache: the authentication server decides about every request in the end.
// Most calls therefore go on without the store while it cannot be reached.
package ownership

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// DefaultLifetime is the default of Config.Lifetime.
const DefaultLifetime = 5 * time.Minute

// detachedTimeout bounds store calls that must not end with the request.
const detachedTimeout = 3 * time.Second

// recordAttempts is how often storing an owner is tried.
const recordAttempts = 2

// ErrDamaged is wrapped by the error of a Store for a stored claim that no Store writes.
var ErrDamaged = errors.New("damaged claim")

// ErrUnavailable is wrapped by every error of a Service. It means that the store or the
// sealing keys cannot be used, or that a stored claim cannot be opened.
var ErrUnavailable = errors.New("ownership unavailable")

// errUnreadable is wrapped by errors about a claim that exists and cannot be read. It is
// never treated as absent: otherwise whoever can damage the store or remove the keys
// could have the requests of others cancelled.
var errUnreadable = errors.New("stored claim")

// UnknownRequests says what to do with the cancellation of a request without a known
// owner.
type UnknownRequests string

// The values of UnknownRequests.
const (
	// ForwardUnknown leaves the decision to the authentication server.
	ForwardUnknown UnknownRequests = "forward"
	// RefuseUnknown refuses it.
	RefuseUnknown UnknownRequests = "refuse"
)

// PlainCancels says what to do with the cancellation of a request by its plain key. With
// a plain key nothing proves that the caller has the device whose serial number it names.
type PlainCancels string

// The values of PlainCancels.
const (
	// ForwardPlain forwards it for the owner of the request.
	ForwardPlain PlainCancels = "forward"
	// RefusePlain refuses it.
	RefusePlain PlainCancels = "refuse"
)

// Config is the configuration of a Service.
type Config struct {
	// Open returns the store of the claims, which it opens if necessary, and the sealing
	// keys. Every operation calls it once. If only the keys fail, it returns the store
	// with the error: that a request has no owner is known without keys. Required.
	Open func(context.Context) (Store, *seal.Keyring, error)
	// Lifetime is how long a claim is kept if it is not released before: 1 s to 24 h, 0
	// for DefaultLifetime.
	Lifetime time.Duration
	// Unknown is ForwardUnknown if empty.
	Unknown UnknownRequests
	// PlainCancel is ForwardPlain if empty.
	PlainCancel PlainCancels
	// Logger gets details that clients must not learn; nil for no log.
	Logger *slog.Logger
	// Alarm is called for stored values that cannot be used; nil for no alarms.
	Alarm func(ctx context.Context, a seal.Alarm)
}

// Service decides what may be done with pending requests. It is safe for
// concurrent use.
type Service struct {
	opener      func(context.Context) (Store, *seal.Keyring, error)
	lifetime    time.Duration
	unknown     UnknownRequests
	refusePlain bool
	logger      *slog.Logger
	alarm       func(ctx context.Context, a seal.Alarm)
}

// New returns a Service without opening store or keys. The error is an *option.Error for
// an invalid option.
func New(c Config) (*Service, error) {
	c.Lifetime = cmp.Or(c.Lifetime, DefaultLifetime)
	c.Unknown = cmp.Or(c.Unknown, ForwardUnknown)
	c.PlainCancel = cmp.Or(c.PlainCancel, ForwardPlain)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Alarm == nil {
		c.Alarm = func(context.Context, seal.Alarm) {}
	}
	if c.Open == nil {
		return nil, errors.New("no store")
	}
	if err := cmp.Or(
		option.Either("unknown", c.Unknown, ForwardUnknown, RefuseUnknown),
		option.Either("plain_cancel", c.PlainCancel, ForwardPlain, RefusePlain),
		option.Duration("lifetime", c.Lifetime, time.Second, 24*time.Hour),
	); err != nil {
		return nil, err
	}
	return &Service{
		opener:      c.Open,
		lifetime:    c.Lifetime,
		unknown:     c.Unknown,
		refusePlain: c.PlainCancel == RefusePlain,
		logger:      c.Logger,
		alarm:       c.Alarm,
	}, nil
}

// Retrieving decides whether a device may retrieve a request: AlreadyOwned if it was
// retrieved before, else Forward. See Decision for the error.
func (s *Service) Retrieving(ctx context.Context, kind Kind, key form.PlainKey) (Decision, error) {
	found, err := s.claimTo(ctx, kind, string(key))
	return s.decision(ctx, retrieving, found, Caller{}, err)
}

// Completing decides about the completion of a request: always Forward, to the instance
// that holds it if that is known. See Decision for the error.
func (s *Service) Completing(ctx context.Context, kind Kind, key form.PlainKey) (Decision, error) {
	found, err := s.claimTo(ctx, kind, string(key))
	return s.decision(ctx, completing, found, Caller{}, err)
}

// Cancelling decides about the cancellation of a request by c. The gateway cannot read
// which of the device's requests a wrapped key means. The instances are then those of all
// requests that the application may cancel. See Decision for the error.
func (s *Service) Cancelling(ctx context.Context, kind Kind, key form.Key, c Caller) (Decision, error) {
	if key.Wrapped() {
		found, err := s.claimsOf(ctx, kind, c.SerialNumber)
		return s.decision(ctx, cancellingWrapped, found, c, err)
	}
	if s.refusePlain {
		return Decision{Verdict: PlainKey}, nil
	}
	found, err := s.claimTo(ctx, kind, string(key))
	return s.decision(ctx, cancelling, found, c, err)
}

// RecordOwner stores o as the owner of a request that was just retrieved, unless the
// request has an owner. It reports whether o is the owner now. It works even if ctx has
// ended, and tries again after an error. The error wraps ErrUnavailable;
// whether o owns the request is then unknown.
func (s *Service) RecordOwner(ctx context.Context, kind Kind, key form.PlainKey, o Owner) (won bool, err error) {
	c := Claim{Key: string(key)}
	rand.Read(c.Token[:])
	for range recordAttempts {
		won, err = s.claim(ctx, kind, c, o)
		if err == nil {
			return won, nil
		}
	}
	return false, fmt.Errorf("%w: storing owner: %w", ErrUnavailable, err)
}

// claim makes one attempt to store c with the owner o, which it seals.
func (s *Service) claim(ctx context.Context, kind Kind, c Claim, o Owner) (bool, error) {
	plaintext, err := o.encode()
	if err != nil {
		return false, err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	store, ring, err := s.opener(ctx)
	if err != nil {
		return false, err
	}
	if c.Owner, err = ring.Seal(label(kind, c), plaintext); err != nil {
		return false, err
	}
	return store.Claim(ctx, kind, c, o.SerialNumber, s.lifetime)
}

// Release removes the claim that d was about, after the authentication server completed
// or cancelled the request. It works even if ctx has ended. It does nothing if d does not
// say which claim that is. The error wraps ErrUnavailable.
func (s *Service) Release(ctx context.Context, d Decision) error {
	if d.release == nil {
		return nil
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	store, _, err := s.opener(ctx)
	if store != nil {
		r := d.release
		err = store.Release(ctx, r.kind, r.key, r.token, r.owner.SerialNumber)
	}
	if err != nil {
		return fmt.Errorf("%w: removing owner: %w", ErrUnavailable, err)
	}
	return nil
}

// openStore is the store with the sealing keys. err says why the keys, or the store and
// the keys, are missing.
type openStore struct {
	store Store
	ring  *seal.Keyring
	err   error
}

func (s *Service) open(ctx context.Context) (v openStore) {
	v.store, v.ring, v.err = s.opener(ctx)
	return v
}

// claimTo returns the claim to a request, none or one.
func (s *Service) claimTo(ctx context.Context, kind Kind, key string) ([]openedClaim, error) {
	v := s.open(ctx)
	if v.store == nil {
		return nil, v.err
	}
	c, found, err := v.store.Owner(ctx, kind, key)
	if err != nil || !found {
		return nil, s.readError(ctx, kind, err)
	}
	// A claim to another request does not open under this key.
	c.Key = key
	h, err := s.openClaim(ctx, v, kind, c)
	if err != nil {
		return nil, err
	}
	return []openedClaim{h}, nil
}

// claimsOf returns the claims of a device.
func (s *Service) claimsOf(ctx context.Context, kind Kind, serialNumber string) ([]openedClaim, error) {
	v := s.open(ctx)
	if v.store == nil {
		return nil, v.err
	}
	claims, err := v.store.Pending(ctx, kind, serialNumber)
	if err != nil {
		return nil, s.readError(ctx, kind, err)
	}
	found := make([]openedClaim, 0, len(claims))
	for _, c := range claims {
		h, err := s.openClaim(ctx, v, kind, c)
		if err != nil {
			return nil, err
		}
		if h.owner.SerialNumber != serialNumber {
			return nil, s.unopenedError(ctx, kind)
		}
		found = append(found, h)
	}
	return found, nil
}

// readError returns the error for err of the store. It raises the alarm if err means that
// a claim is damaged.
func (s *Service) readError(ctx context.Context, kind Kind, err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	s.logger.ErrorContext(ctx, "stored claim is damaged", slog.String("request", string(kind)), slog.Any("error", err))
	s.alarm(ctx, seal.Alarm{Event: seal.EventDamaged, Request: string(kind)})
	return fmt.Errorf("%w: %w", errUnreadable, err)
}

// openClaim opens the sealed owner of a claim.
func (s *Service) openClaim(ctx context.Context, v openStore, kind Kind, c Claim) (openedClaim, error) {
	if v.err != nil {
		return openedClaim{}, fmt.Errorf("%w: %w", errUnreadable, v.err)
	}
	plaintext, err := v.ring.Open(label(kind, c), c.Owner)
	if err != nil {
		return openedClaim{}, s.unopenedError(ctx, kind)
	}
	o, ok := decodeOwner(plaintext)
	if !ok {
		return openedClaim{}, s.unopenedError(ctx, kind)
	}
	return openedClaim{kind: kind, key: c.Key, token: c.Token, owner: o}, nil
}

// unopenedError raises the alarm for a claim that no key opens or that was moved to
// another request or device, and returns the error for it.
func (s *Service) unopenedError(ctx context.Context, kind Kind) error {
	s.logger.ErrorContext(ctx, "stored claim cannot be opened with any sealing key", slog.String("request", string(kind)))
	s.alarm(ctx, seal.Alarm{Event: seal.EventUnopened, Request: string(kind)})
	return fmt.Errorf("%w: %w", errUnreadable, seal.ErrUnopened)
}

// detached returns a context for a store call that must be made even if the client has
// gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}
