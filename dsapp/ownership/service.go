// Package ownership remembers which application and device retrieved a pending
// login or signature, and which instance of the authentication server holds it.
// The first application to retrieve a request owns it: only this one may cancel
// it, and what follows goes to the instance that holds it.
//
// This knowledge is a cache. The authentication server has the last word on
// every request, so work goes on without it while the store is out of reach.
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

// claimAttempts is how often a claim is tried: again if the outcome is unknown.
const claimAttempts = 2

// ErrDamaged is wrapped by the error of a Store for a claim that no Store can have
// written.
var ErrDamaged = errors.New("damaged claim")

// ErrUnavailable is wrapped by every error of a Service: the store or the sealing
// keys cannot be used, or a stored claim cannot be opened.
var ErrUnavailable = errors.New("ownership unavailable")

// errUnread is wrapped by errors about a claim that is there and cannot be read.
// It is never treated as unknown: that would let whoever can spoil the store or
// take the keys away have foreign requests cancelled.
var errUnread = errors.New("stored claim")

// UnknownRequests is what to do with the cancellation of a request that nobody
// is known to own.
type UnknownRequests string

// The values of UnknownRequests.
const (
	// ForwardUnknown leaves the decision to the authentication server.
	ForwardUnknown UnknownRequests = "forward"
	// RefuseUnknown refuses it.
	RefuseUnknown UnknownRequests = "refuse"
)

// PlainCancels is what to do with the cancellation of a request by its plain key.
// The serial number of the device is no more than a claim of the caller then.
type PlainCancels string

// The values of PlainCancels.
const (
	// ForwardPlain judges it by who retrieved the request.
	ForwardPlain PlainCancels = "forward"
	// RefusePlain refuses it.
	RefusePlain PlainCancels = "refuse"
)

// Config is what a Service works with.
type Config struct {
	// Open returns the store of the claims, which it opens if need be, and the sealing
	// keys. Every operation calls it once. If only the keys cannot be had, the store
	// comes with the error: what nobody claimed is known without keys. Required.
	Open func(context.Context) (Store, *seal.Keyring, error)
	// Lifetime is how long a claim is kept unless it is released before: 1 s to 24 h, 0
	// for DefaultLifetime.
	Lifetime time.Duration
	// Unknown is ForwardUnknown if empty.
	Unknown UnknownRequests
	// PlainCancel is ForwardPlain if empty.
	PlainCancel PlainCancels
	// Logger gets what only the operator may know; nil for no log.
	Logger *slog.Logger
	// Alarm is told of stored values that cannot be used; nil for no alarms.
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

// New returns a Service. It uses neither store nor keys yet. The error about an
// option is an *option.Error.
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

// Retrieving decides on a device's wish to retrieve a request: AlreadyOwned if it
// was retrieved before, else Forward. See Decision for the error.
func (s *Service) Retrieving(ctx context.Context, kind Kind, key form.PlainKey) (Decision, error) {
	found, err := s.owner(ctx, kind, string(key))
	return s.conclude(ctx, retrieving, found, Caller{}, err)
}

// Completing decides on the completion of a request: always Forward, to the
// instance that holds it if that is known. See Decision for the error.
func (s *Service) Completing(ctx context.Context, kind Kind, key form.PlainKey) (Decision, error) {
	found, err := s.owner(ctx, kind, string(key))
	return s.conclude(ctx, completing, found, Caller{}, err)
}

// Cancelling decides on the cancellation of a request by c. A wrapped key does not
// tell which of the device's requests it means: the instances are then those of
// all that the application may cancel. A plain key is looked up unless it is refused
// anyway. See Decision for the error.
func (s *Service) Cancelling(ctx context.Context, kind Kind, key form.Key, c Caller) (Decision, error) {
	if key.Wrapped() {
		found, err := s.pending(ctx, kind, c.SerialNumber)
		return s.conclude(ctx, cancellingWrapped, found, c, err)
	}
	if s.refusePlain {
		return Decision{Verdict: PlainKey}, nil
	}
	found, err := s.owner(ctx, kind, string(key))
	return s.conclude(ctx, cancelling, found, c, err)
}

// RecordOwner makes o the owner of a request that was retrieved just now, and reports
// whether it is: another one may have been faster. It does so even if ctx has
// ended, and tries again if the outcome is unknown. The error wraps
// ErrUnavailable; whether o owns the request is then unknown.
func (s *Service) RecordOwner(ctx context.Context, kind Kind, key form.PlainKey, o Owner) (won bool, err error) {
	c := Claim{Key: string(key)}
	rand.Read(c.Token[:])
	store, err := s.seal(ctx, kind, &c, o)
	if err != nil {
		return false, fmt.Errorf("%w: claiming request: %w", ErrUnavailable, err)
	}
	for range claimAttempts {
		won, err = s.claim(ctx, store, kind, c, o.SerialNumber)
		if err == nil {
			return won, nil
		}
	}
	return false, fmt.Errorf("%w: claiming request: %w", ErrUnavailable, err)
}

func (s *Service) claim(ctx context.Context, store Store, kind Kind, c Claim, serialNumber string) (bool, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	return store.Claim(ctx, kind, c, serialNumber, s.lifetime)
}

// Release forgets the claim that d was about, after the authentication server
// completed or cancelled the request. It does so even if ctx has ended, and does
// nothing if d leaves open which claim that is. The error wraps ErrUnavailable.
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
		return fmt.Errorf("%w: releasing request: %w", ErrUnavailable, err)
	}
	return nil
}

// vault is the open store and the keys to what it holds. err says why there are no
// keys, or not even a store.
type vault struct {
	store Store
	ring  *seal.Keyring
	err   error
}

func (s *Service) open(ctx context.Context) (v vault) {
	v.store, v.ring, v.err = s.opener(ctx)
	return v
}

// owner finds the claim to a request, if there is one.
func (s *Service) owner(ctx context.Context, kind Kind, key string) ([]held, error) {
	v := s.open(ctx)
	if v.store == nil {
		return nil, v.err
	}
	c, found, err := v.store.Owner(ctx, kind, key)
	if err != nil || !found {
		return nil, s.read(ctx, kind, err)
	}
	// It opens only as the claim to this request.
	c.Key = key
	h, err := s.unseal(ctx, v, kind, c)
	if err != nil {
		return nil, err
	}
	return []held{h}, nil
}

// pending finds the claims of a device.
func (s *Service) pending(ctx context.Context, kind Kind, serialNumber string) ([]held, error) {
	v := s.open(ctx)
	if v.store == nil {
		return nil, v.err
	}
	claims, err := v.store.Pending(ctx, kind, serialNumber)
	if err != nil {
		return nil, s.read(ctx, kind, err)
	}
	found := make([]held, 0, len(claims))
	for _, c := range claims {
		h, err := s.unseal(ctx, v, kind, c)
		if err != nil {
			return nil, err
		}
		if h.owner.SerialNumber != serialNumber {
			return nil, s.unopened(ctx, kind)
		}
		found = append(found, h)
	}
	return found, nil
}

// read raises the alarm for a claim that is damaged, which the store tells by err.
func (s *Service) read(ctx context.Context, kind Kind, err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	s.logger.ErrorContext(ctx, "stored claim is damaged", slog.String("request", string(kind)), slog.Any("error", err))
	s.alarm(ctx, seal.Alarm{Event: seal.EventDamaged, Request: string(kind)})
	return fmt.Errorf("%w: %w", errUnread, err)
}

// unseal returns the claim as it was sealed.
func (s *Service) unseal(ctx context.Context, v vault, kind Kind, c Claim) (held, error) {
	if v.err != nil {
		return held{}, fmt.Errorf("%w: %w", errUnread, v.err)
	}
	plaintext, err := v.ring.Open(label(kind, c), c.Owner)
	if err != nil {
		return held{}, s.unopened(ctx, kind)
	}
	o, ok := decodeOwner(plaintext)
	if !ok {
		return held{}, s.unopened(ctx, kind)
	}
	return held{kind: kind, key: c.Key, token: c.Token, owner: o}, nil
}

// seal puts o into c as it is kept, and returns the store to keep it.
func (s *Service) seal(ctx context.Context, kind Kind, c *Claim, o Owner) (Store, error) {
	plaintext, err := o.encode()
	if err != nil {
		return nil, err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	store, ring, err := s.opener(ctx)
	if err != nil {
		return nil, err
	}
	c.Owner, err = ring.Seal(label(kind, *c), plaintext)
	return store, err
}

// unopened raises the alarm for a claim that no key opens, or that is not where
// it was put.
func (s *Service) unopened(ctx context.Context, kind Kind) error {
	s.logger.ErrorContext(ctx, "stored claim cannot be opened with any sealing key", slog.String("request", string(kind)))
	s.alarm(ctx, seal.Alarm{Event: seal.EventUnopened, Request: string(kind)})
	return fmt.Errorf("%w: %w", errUnread, seal.ErrUnopened)
}

// detached returns a context for a store call that has to be made even though
// the client has gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}
