package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Memory is a store that answers as its Model does. Tests can look into it, make its
// methods fail and ask which of them were called. It may be used concurrently.
type Memory struct {
	mu            sync.Mutex
	model         *Model
	before, after map[string]Hook
	calls         []string
	given         bytes.Buffer
}

// Hook is what a test does at a call. Its error is the result of the call.
type Hook func(ctx context.Context) error

var (
	_ activation.Store = (*Memory)(nil)
	_ ownership.Store  = (*Memory)(nil)
)

// NewMemory returns an empty store in which lifetimes end by the clock now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{model: newModel(now), before: map[string]Hook{}, after: map[string]Hook{}}
}

// Do calls f with what is stored, while no other call is under way.
func (m *Memory) Do(f func(*Model)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.model)
}

// Before has h called before the named method does anything. It does nothing if h fails.
// A nil h ends this.
func (m *Memory) Before(method string, h Hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before[method] = h
}

// After has h called after the named method has done everything. If h fails, the outcome
// is lost. A nil h ends this.
func (m *Memory) After(method string, h Hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after[method] = h
}

// Fail has the named method fail with err without doing anything. A nil err ends this.
func (m *Memory) Fail(method string, err error) {
	m.Before(method, func(context.Context) error { return err })
}

// TakeCalls returns the names of the methods called since the last TakeCalls, in order.
func (m *Memory) TakeCalls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}

// Given returns every sealed value and tag that the store was ever given.
func (m *Memory) Given() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.given.Bytes())
}

// call carries out a method between its hooks.
func (m *Memory) call(ctx context.Context, method string, do func(), given ...[]byte) error {
	m.mu.Lock()
	m.calls = append(m.calls, method)
	for _, b := range given {
		m.given.Write(b)
	}
	before, after := m.before[method], m.after[method]
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return fmt.Errorf("%w: %w", activation.ErrUnavailable, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", activation.ErrUnavailable, err)
	}
	m.Do(func(*Model) { do() })
	if after != nil {
		if err := after(ctx); err != nil {
			return fmt.Errorf("%w: %w", activation.ErrUnavailable, err)
		}
	}
	return nil
}

func cloneRecord(r activation.Record) activation.Record {
	r.Facts, r.Verifier, r.Data = bytes.Clone(r.Facts), bytes.Clone(r.Verifier), bytes.Clone(r.Data)
	r.Answer = bytes.Clone(r.Answer)
	return r
}

func cloneHandshake(h activation.Handshake) activation.Handshake {
	h.State = bytes.Clone(h.State)
	return h
}

func cloneClaim(c ownership.Claim) ownership.Claim {
	c.Owner = bytes.Clone(c.Owner)
	return c
}

// Reserve implements activation.Store. There is always room.
func (m *Memory) Reserve(ctx context.Context) (release func(), err error) {
	err = m.call(ctx, "Reserve", func() { m.model.Reserved++ })
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { m.Do(func(m *Model) { m.Reserved-- }) }), nil
}

// Create implements activation.Store.
func (m *Memory) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (existing activation.Record, created bool, err error) {
	err = m.call(ctx, "Create", func() {
		existing, created = m.model.create(cloneRecord(r), replaces)
		existing = cloneRecord(existing)
	}, r.Facts, r.Verifier, r.Data, r.Answer)
	return existing, created, err
}

// Load implements activation.Store.
func (m *Memory) Load(ctx context.Context, identifier string) (r activation.Record, found bool, err error) {
	err = m.call(ctx, "Load", func() {
		r, found = m.model.load(identifier)
		r = cloneRecord(r)
	})
	return r, found, err
}

// PutHandshake implements activation.Store.
func (m *Memory) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (contended bool, err error) {
	err = m.call(ctx, "PutHandshake", func() { contended = m.model.put(identifier, cloneHandshake(h)) }, h.State, h.Source[:], h.Application[:])
	return contended, err
}

// Take implements activation.Store.
func (m *Memory) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (h activation.Handshake, ok bool, err error) {
	err = m.call(ctx, "Take", func() {
		h, ok = m.model.take(identifier, token, source, maxAttempts)
		h = cloneHandshake(h)
	})
	return h, ok, err
}

// Settle implements activation.Store.
func (m *Memory) Settle(ctx context.Context, identifier string, s activation.Settlement) (r activation.Record, ok bool, err error) {
	err = m.call(ctx, "Settle", func() {
		r, ok = m.model.settle(identifier, s)
		r = cloneRecord(r)
	})
	return r, ok, err
}

// AdmitDevice implements activation.Store.
func (m *Memory) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (r activation.Record, ok bool, err error) {
	err = m.call(ctx, "AdmitDevice", func() {
		r, ok = m.model.admitDevice(identifier, maxAttempts)
		r = cloneRecord(r)
	})
	return r, ok, err
}

// ReturnDevice implements activation.Store.
func (m *Memory) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) error {
	return m.call(ctx, "ReturnDevice", func() { m.model.returnDevice(identifier, generation) })
}

// AdmitConfirmation implements activation.Store.
func (m *Memory) AdmitConfirmation(
	ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind,
) (r activation.Record, ok bool, err error) {
	err = m.call(ctx, "AdmitConfirmation", func() {
		r, ok = m.model.confirm(identifier, maxAttempts, kinds)
		r = cloneRecord(r)
	})
	return r, ok, err
}

// ReturnConfirmation implements activation.Store.
func (m *Memory) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) error {
	return m.call(ctx, "ReturnConfirmation", func() { m.model.returnConfirmation(identifier, generation) })
}

// Inspect implements activation.Store.
func (m *Memory) Inspect(ctx context.Context, identifier string) (x activation.State, found bool, err error) {
	err = m.call(ctx, "Inspect", func() {
		x, found = m.model.inspect(identifier)
		x.Record = cloneRecord(x.Record)
	})
	return x, found, err
}

// Burn implements activation.Store.
func (m *Memory) Burn(ctx context.Context, identifier string, maxAttempts int) (r activation.Record, ok bool, err error) {
	err = m.call(ctx, "Burn", func() {
		r, ok = m.model.burn(identifier, maxAttempts)
		r = cloneRecord(r)
	})
	return r, ok, err
}

// Remove implements activation.Store.
func (m *Memory) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	return m.call(ctx, "Remove", func() { m.model.remove(identifier, generation) })
}

// SimulationSecret implements activation.Store.
func (m *Memory) SimulationSecret(ctx context.Context, candidate []byte) (secret []byte, err error) {
	err = m.call(ctx, "SimulationSecret", func() {
		secret = bytes.Clone(m.model.simulationSecret(bytes.Clone(candidate)))
	}, candidate)
	return secret, err
}

// ReplaceSimulationSecret implements activation.Store.
func (m *Memory) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (replaced bool, err error) {
	err = m.call(ctx, "ReplaceSimulationSecret", func() {
		replaced = m.model.replaceSimulationSecret(current, bytes.Clone(next))
	}, next)
	return replaced, err
}

// Owner implements ownership.Store.
func (m *Memory) Owner(ctx context.Context, kind ownership.Kind, key string) (c ownership.Claim, found bool, err error) {
	err = m.call(ctx, "Owner", func() {
		if o := m.model.owner(Request{kind, key}); o != nil {
			c, found = cloneClaim(o.Claim), true
		}
	})
	return c, found, err
}

// Pending implements ownership.Store.
func (m *Memory) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) (claims []ownership.Claim, err error) {
	err = m.call(ctx, "Pending", func() {
		for _, o := range m.model.listed(kind, serialNumber) {
			claims = append(claims, cloneClaim(o.Claim))
		}
	})
	return claims, err
}

// Claim implements ownership.Store.
func (m *Memory) Claim(
	ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration,
) (won bool, err error) {
	err = m.call(ctx, "Claim", func() { won = m.model.claim(kind, cloneClaim(c), serialNumber, lifetime) }, c.Owner)
	return won, err
}

// Release implements ownership.Store.
func (m *Memory) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, _ string) error {
	return m.call(ctx, "Release", func() { m.model.release(Request{kind, key}, token) })
}
