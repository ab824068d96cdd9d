// Package repeat gives a call that is repeated the answer of the first one. Mobile connections
// break after an authentication server has acted; the phone then sends the same call again.
//
// A call is marked in the store before its command is sent. The answer of a success replaces
// the mark, sealed, together with what else the success changes in the store, and a certain
// failure removes it. A call that finds the mark of another
// one, its twin, waits for the outcome of that call. An unknown outcome is kept as well, so
// that no command is sent a second time.
//
// The store is no authority: while it cannot be used, calls are carried out as if there were
// no repeats.
package repeat

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

const (
	// DefaultLifetime is how long an outcome is kept by default.
	DefaultLifetime = time.Minute
	// pollInterval is how often a call looks for the outcome of its twin.
	pollInterval = 100 * time.Millisecond
	// markMargin is how much longer than Config.Longest a mark lives.
	markMargin = 5 * time.Second
	// detachedTimeout bounds store calls that must not end with the request.
	detachedTimeout = 3 * time.Second
	// purpose is what the keys for outcomes and digests are derived for.
	purpose = "repeats"
)

var (
	// ErrTimeout means that the twin of a call had no outcome in time.
	ErrTimeout = errors.New("the same call is still under way")
	// ErrUnreadable means that a kept outcome cannot be opened.
	ErrUnreadable = errors.New("kept outcome cannot be opened")
)

// Config is the configuration of a Service.
type Config struct {
	// Open returns the store, which it opens if necessary, and the sealing keys. Every call
	// calls it once. Required.
	Open func(context.Context) (Store, *seal.Keyring, error)
	// Lifetime is how long outcomes are kept: 1 s to 10 min, or 0 for no repeats.
	Lifetime time.Duration
	// Timeout is how long a call waits for its twin.
	Timeout time.Duration
	// Longest is how long all commands of a call may take together. Default: Timeout.
	Longest time.Duration
	// Logger gets details that clients must not learn; nil for no log.
	Logger *slog.Logger
	// Alarm is called for kept outcomes that cannot be opened; nil for no alarms.
	Alarm func(ctx context.Context, a seal.Alarm)
}

// Service begins calls that may be repeats. It is safe for concurrent use.
type Service struct {
	opener   func(context.Context) (Store, *seal.Keyring, error)
	lifetime time.Duration
	timeout  time.Duration
	longest  time.Duration
	purpose  string // of the derived keys
	logger   *slog.Logger
	alarm    func(ctx context.Context, a seal.Alarm)

	mu      sync.Mutex
	root    *seal.Keyring // the keyring that derived was derived from
	derived *seal.Keyring
}

// New returns a Service without opening store or keys. The error is an *option.Error for
// an invalid option.
func New(c Config) (*Service, error) {
	if c.Lifetime != 0 {
		if err := option.Duration("repeat", c.Lifetime, time.Second, 10*time.Minute); err != nil {
			return nil, err
		}
	}
	return newService(c, purpose)
}

func newService(c Config, purpose string) (*Service, error) {
	if c.Open == nil {
		return nil, errors.New("no store")
	}
	if c.Alarm == nil {
		c.Alarm = func(context.Context, seal.Alarm) {}
	}
	return &Service{
		opener:   c.Open,
		lifetime: c.Lifetime,
		timeout:  c.Timeout,
		longest:  cmp.Or(c.Longest, c.Timeout),
		purpose:  purpose,
		logger:   cmp.Or(c.Logger, slog.New(slog.DiscardHandler)),
		alarm:    c.Alarm,
	}, nil
}

// Request is what a call consists of. Two calls are the same if all of it is.
type Request struct {
	// Application is the name of the caller's key.
	Application string
	// Operation is what is asked for.
	Operation string
	// Place is what the call is about, see Mark.
	Place string
	// Members are the values of the call, in a fixed order.
	Members []string
}

// Begin begins a call. It does not ask the store yet. It returns nil if there are no repeats,
// or if the store or the keys cannot be used.
func (s *Service) Begin(ctx context.Context, r Request) *Call {
	if s.lifetime == 0 {
		return nil
	}
	store, ring, err := s.open(ctx)
	if err != nil {
		return nil
	}
	parts := append(make([]string, 0, 8), r.Application, r.Operation, r.Place)
	c := &Call{service: s, store: store, ring: ring, mark: Mark{
		Place:    r.Place,
		Digest:   ring.Digest(append(parts, r.Members...)...),
		Lifetime: s.longest + markMargin,
	}}
	rand.Read(c.mark.Token[:])
	return c
}

// open returns the store and the keys for outcomes.
func (s *Service) open(ctx context.Context) (Store, *seal.Keyring, error) {
	store, ring, err := s.opener(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ring, err = s.derive(ring); err != nil {
		s.logger.ErrorContext(ctx, "deriving keys for repeats failed", slog.Any("error", err))
		return nil, nil, err
	}
	return store, ring, nil
}

// derive returns the keys for outcomes. They are derived once for each keyring.
func (s *Service) derive(ring *seal.Keyring) (*seal.Keyring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != ring {
		derived, err := ring.Derive(s.purpose)
		if err != nil {
			return nil, err
		}
		s.root, s.derived = ring, derived
	}
	return s.derived, nil
}

// state is what a Call knows.
type state int

const (
	// unmarked means that the store was not asked yet, or cannot be used.
	unmarked state = iota
	// marked means that the call is the first one.
	marked
	// found means that there was another call before.
	found
)

// Call is one call that may be the repeat of another one. It is not safe for concurrent use.
type Call struct {
	service *Service
	store   Store
	ring    *seal.Keyring
	mark    Mark
	state   state
	entry   Entry
	// unusable says that the store was asked and failed.
	unusable bool
	// outcome is that of Conclude.
	outcome []byte
	// settled says that the store has taken the outcome, or has no mark any more.
	settled bool
}

// Found reports whether the same call came before, so that this one must not be carried out.
func (c *Call) Found() bool { return c.state == found }

// Marked reports whether the call is marked as the first one.
func (c *Call) Marked() bool { return c.state == marked }

// MayBeMarked reports whether the store was asked to mark the call and failed. It may have the mark
// all the same, in which case its twins wait for the outcome.
func (c *Call) MayBeMarked() bool { return c.unusable }

// Mark marks the call, unless it is marked, was found or could not be marked.
func (c *Call) Mark(ctx context.Context) {
	if c.asks() {
		e, present, err := c.store.Mark(ctx, c.mark)
		c.note(e, present, true, err)
	}
}

// asks reports whether the store is still to be asked.
func (c *Call) asks() bool { return c.state == unmarked && !c.unusable }

// note notes the answer of the store. set says that the mark was stored if nothing was
// present.
func (c *Call) note(e Entry, present, set bool, err error) {
	switch {
	case err != nil:
		c.unusable = true
	case present && e.Token != c.mark.Token:
		c.state, c.entry = found, e
	case present || set:
		c.state = marked
	}
}

// Await returns the outcome of the call that came before. It is nil if that call failed for
// certain: nothing is kept then, and this call has to begin anew. Await waits until deadline
// for a call under way. The error is ErrTimeout, ErrUnreadable or that of ctx.
func (c *Call) Await(ctx context.Context, deadline time.Time) ([]byte, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for c.entry.Outcome == nil {
		if !time.Now().Before(deadline) {
			return nil, ErrTimeout
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		e, present, err := c.store.Kept(ctx, c.mark.Place, c.mark.Digest)
		if err != nil {
			continue
		}
		if !present {
			return nil, nil
		}
		c.entry = e
	}
	return c.service.openKept(ctx, c.ring, c.label(c.entry.Token), c.entry.Outcome)
}

// openKept opens what a store has kept. The error is ErrUnreadable.
func (s *Service) openKept(ctx context.Context, ring *seal.Keyring, l seal.Label, sealed []byte) ([]byte, error) {
	kept, err := ring.Open(l, sealed)
	if err != nil {
		s.logger.ErrorContext(ctx, "kept outcome cannot be opened with any sealing key")
		s.alarm(ctx, seal.Alarm{Event: seal.EventUnopened})
		return nil, ErrUnreadable
	}
	return kept, nil
}

// Deadline returns until when a call that begins to wait now waits for its twin.
func (c *Call) Deadline() time.Time { return time.Now().Add(c.service.timeout) }

// Conclude says what the outcome of a marked call is if the change in the store succeeds that
// follows. The same round trip then keeps it. The change is made through Ownership or Activation.
func (c *Call) Conclude(outcome []byte) { c.outcome = outcome }

// concluded reports whether the next change in the store keeps the outcome.
func (c *Call) concluded() bool { return c.state == marked && c.outcome != nil && !c.settled }

// Settled reports whether the store has taken the outcome of the call, or has no mark of it any more.
func (c *Call) Settled() bool { return c.settled }

// Keep keeps the outcome of a call that is or may be marked. It works even if ctx has ended.
func (c *Call) Keep(ctx context.Context, outcome []byte) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	c.outcome = outcome
	err := c.settle(func(m Mark, sealed []byte) error { return c.store.Keep(ctx, m, sealed) })
	if err != nil {
		return fmt.Errorf("keeping the outcome of a call: %w", err)
	}
	return nil
}

// settle has keep store the sealed outcome. If that fails, later changes of the store are made without
// the outcome, so that what is wrong with it does not prevent them.
func (c *Call) settle(keep func(m Mark, sealed []byte) error) error {
	sealed, err := c.ring.Seal(c.label(c.mark.Token), c.outcome)
	if err == nil {
		m := c.mark
		m.Lifetime = c.service.lifetime
		err = keep(m, sealed)
	}
	if err != nil {
		c.outcome = nil
		return err
	}
	c.settled = true
	return nil
}

// Forget removes the mark of a call that failed for certain. It works even if ctx has ended.
func (c *Call) Forget(ctx context.Context) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := c.store.Forget(ctx, c.mark.Place, c.mark.Digest, c.mark.Token); err != nil {
		return fmt.Errorf("removing the mark of a call: %w", err)
	}
	return nil
}

// label returns the label of a sealed outcome. It binds the outcome to the call.
func (c *Call) label(token Token) seal.Label {
	return seal.Label{Kind: "repeat", Identifier: hex.EncodeToString(c.mark.Digest[:]), Generation: token}
}

// detached returns a context for a store call that must be made even if the client has
// gone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}
