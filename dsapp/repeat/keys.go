package repeat

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// keysPurpose is what the keys for calls with idempotency keys are derived for.
const keysPurpose = "Idempotency-Key"

var (
	// ErrUnderWay means that the first call with an idempotency key is under way.
	ErrUnderWay = errors.New("the first call with this key is still under way")
	// ErrOtherBody means that an idempotency key was used for another call.
	ErrOtherBody = errors.New("the key was used with another body")
	// ErrNoOutcome means that the first call with an idempotency key ended without an outcome,
	// for instance because its gateway node was killed.
	ErrNoOutcome = errors.New("the first call with this key has left no outcome")
)

// Keys begins registrations that their clients have named by idempotency keys. It is safe for
// concurrent use.
//
// Under a key the store has what became of the first call: nothing yet, an unknown outcome, or
// the registration that was made. The answer itself, which contains the activation password, is
// part of the registration and goes with it. Then the key is free.
type Keys struct{ service *Service }

// NewKeys returns Keys without opening store or keys. The Lifetime of c is that of registrations.
func NewKeys(c Config) (*Keys, error) {
	s, err := newService(c, keysPurpose)
	if err != nil {
		return nil, err
	}
	return &Keys{s}, nil
}

// KeyRequest is a call with an idempotency key.
type KeyRequest struct {
	// Application is the name of the caller's API key. Each has keys of its own.
	Application string
	// Operation is what is asked for.
	Operation string
	// Key is the idempotency key.
	Key string
	// Body is the SHA-256 hash of the body.
	Body [sha256.Size]byte
}

// Begin begins a call and marks it, unless its key was used before. An error means that the
// store or the sealing keys cannot be used.
func (k *Keys) Begin(ctx context.Context, r KeyRequest) (*KeyCall, error) {
	store, ring, err := k.service.open(ctx)
	if err != nil {
		return nil, err
	}
	digest := ring.Digest("key", r.Application, r.Key)
	c := &KeyCall{service: k.service, store: store, ring: ring, body: ring.Digest("body", r.Operation, string(r.Body[:])), mark: Mark{
		// In a cluster, it spreads the keys over the nodes.
		Place:    hex.EncodeToString(digest[:4]),
		Digest:   digest,
		Lifetime: k.service.lifetime,
	}}
	rand.Read(c.mark.Token[:])
	if c.mark.Outcome, err = c.sealState(keyState{}); err != nil {
		return nil, err
	}
	e, found, err := store.Mark(ctx, c.mark)
	if err != nil {
		// The store may have the mark all the same. If it cannot be removed, the key is not
		// free: its calls end with ErrUnderWay and then ErrNoOutcome.
		_ = c.Forget(ctx)
		return nil, fmt.Errorf("marking a call: %w", err)
	}
	if found && e.Token != c.mark.Token {
		c.entry = &e
	}
	return c, nil
}

// KeyCall is one call with an idempotency key. It is not safe for concurrent use.
type KeyCall struct {
	service *Service
	store   Store
	ring    *seal.Keyring
	mark    Mark
	body    Digest
	// entry is that of the call that came before, or nil.
	entry *Entry
	// registration is the identifier of the registration that the call before made.
	registration string
}

// keyState is what is kept under a key, sealed.
type keyState struct {
	// Body is the keyed digest of operation and body.
	Body []byte `json:"body"`
	// Began is when the call began.
	Began time.Time `json:"began"`
	// Registration is the identifier of the registration that the call made.
	Registration string `json:"registration,omitempty"`
	// Outcome is the outcome of a call that made none, as far as is known.
	Outcome []byte `json:"outcome,omitempty"`
}

// First reports whether the key was not used before, so that the call is to be carried out.
func (c *KeyCall) First() bool { return c.entry == nil }

// Registration returns the identifier of the registration whose answer Outcome returned. It is
// empty if there is none.
func (c *KeyCall) Registration() string { return c.registration }

// Outcome returns the answer of the call that came before, or what Keep has kept of it. It is nil
// if the registration is over: the key is free then, and this call has to begin anew. The error is
// ErrUnderWay, ErrOtherBody, ErrNoOutcome, ErrUnreadable or that of the store.
func (c *KeyCall) Outcome(ctx context.Context) ([]byte, error) {
	text, err := c.service.openKept(ctx, c.ring, c.label("key", c.entry.Token), c.entry.Outcome)
	if err != nil {
		return nil, err
	}
	var state keyState
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, ErrUnreadable
	}
	switch {
	case !bytes.Equal(state.Body, c.body[:]):
		return nil, ErrOtherBody
	case state.Outcome != nil:
		return state.Outcome, nil
	case state.Registration == "" && time.Since(state.Began) < c.service.longest+markMargin:
		return nil, ErrUnderWay
	case state.Registration == "":
		return nil, ErrNoOutcome
	}
	answer, err := c.store.Answer(ctx, state.Registration)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of a registration: %w", err)
	}
	sealed, ok := bytes.CutPrefix(answer, c.entry.Token[:])
	if !ok {
		// The registration is over, or another one has its identifier.
		return nil, c.forget(ctx, c.entry.Token)
	}
	c.registration = state.Registration
	return c.service.openKept(ctx, c.ring, c.label("answer", c.entry.Token), sealed)
}

// SealAnswer returns the answer as it is kept in the registration that the call makes.
func (c *KeyCall) SealAnswer(answer []byte) ([]byte, error) {
	sealed, err := c.ring.Seal(c.label("answer", c.mark.Token), answer)
	if err != nil {
		return nil, err
	}
	return append(c.mark.Token[:], sealed...), nil
}

// Keep keeps the outcome of a call that made no registration, as far as is known. It works even
// if ctx has ended.
func (c *KeyCall) Keep(ctx context.Context, outcome []byte) error {
	return c.keep(ctx, keyState{Outcome: outcome})
}

func (c *KeyCall) keep(ctx context.Context, state keyState) error {
	sealed, err := c.sealState(state)
	if err != nil {
		return err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := c.store.Keep(ctx, c.mark, sealed); err != nil {
		return fmt.Errorf("keeping the outcome of a call: %w", err)
	}
	return nil
}

// Forget makes the key of the call free again. It works even if ctx has ended.
func (c *KeyCall) Forget(ctx context.Context) error { return c.forget(ctx, c.mark.Token) }

func (c *KeyCall) forget(ctx context.Context, token Token) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := c.store.Forget(ctx, c.mark.Place, c.mark.Digest, token); err != nil {
		return fmt.Errorf("removing the mark of a call: %w", err)
	}
	return nil
}

func (c *KeyCall) sealState(state keyState) ([]byte, error) {
	state.Body, state.Began = c.body[:], time.Now()
	text, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	return c.ring.Seal(c.label("key", c.mark.Token), text)
}

// label returns the label of a sealed value. It binds the value to the call.
func (c *KeyCall) label(kind string, token Token) seal.Label {
	return seal.Label{Kind: kind, Identifier: hex.EncodeToString(c.mark.Digest[:]), Generation: token}
}

// keyCallKey is the key of the KeyCall in a context.
type keyCallKey struct{}

// Into returns a context with which the registration that is created through Activation is noted
// under the key of the call.
func (c *KeyCall) Into(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyCallKey{}, c)
}

// KeyIn returns the KeyCall of a context, or nil.
func KeyIn(ctx context.Context) *KeyCall {
	c, _ := ctx.Value(keyCallKey{}).(*KeyCall)
	return c
}

// keyedActivation is an activation.Store that notes the registration it creates.
type keyedActivation struct {
	activation.Store

	call *KeyCall
}

// Create implements activation.Store. It notes the registration afterwards, so that the key never names
// one that is not there, which would count as over. If only that fails, or the process ends before it,
// repeats of the call get ErrUnderWay and then ErrNoOutcome, and never make a second registration.
func (a keyedActivation) Create(
	ctx context.Context, r activation.Record, replaces activation.Generation,
) (existing activation.Record, created bool, err error) {
	existing, created, err = a.Store.Create(ctx, r, replaces)
	if err != nil || !created {
		return existing, created, err
	}
	if err := a.call.keep(ctx, keyState{Registration: r.Identifier}); err != nil {
		a.call.service.logger.ErrorContext(ctx, "noting the registration of a call failed", slog.Any("error", err))
	}
	return existing, created, nil
}

var _ activation.Store = keyedActivation{}
