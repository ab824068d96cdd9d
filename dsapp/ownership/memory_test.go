package ownership_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// memory is a Store that can be looked into, made to fail and asked what was
// called.
type memory struct {
	mu     sync.Mutex
	claims map[string]*stored // by kind and key
	calls  []string
	// fail is what a method does before anything else, by its name.
	fail map[string]func(context.Context) error
	// lose is what a method does after it did everything.
	lose map[string]func() error
}

type stored struct {
	ownership.Claim

	kind         ownership.Kind
	serialNumber string
	ends         time.Time
	listed       bool
}

func newMemory() *memory {
	return &memory{
		claims: map[string]*stored{},
		fail:   map[string]func(context.Context) error{},
		lose:   map[string]func() error{},
	}
}

func (m *memory) enter(ctx context.Context, method string) error {
	m.mu.Lock()
	m.calls = append(m.calls, method)
	fail := m.fail[method]
	m.mu.Unlock()
	if fail != nil {
		if err := fail(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// leave is called with mu held.
func (m *memory) leave(method string) error {
	if lose := m.lose[method]; lose != nil {
		return lose()
	}
	return nil
}

// take returns the calls since the last take.
func (m *memory) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}

// peek changes the claim to a request behind the Service's back.
func (m *memory) peek(kind ownership.Kind, key string, change func(*stored)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.claims[string(kind)+key])
}

func (m *memory) live(kind ownership.Kind, key string) *stored {
	if e := m.claims[string(kind)+key]; e != nil && time.Now().Before(e.ends) {
		return e
	}
	return nil
}

func (e *stored) claim() ownership.Claim {
	c := e.Claim
	c.Owner = bytes.Clone(c.Owner)
	return c
}

func (m *memory) Owner(ctx context.Context, kind ownership.Kind, key string) (ownership.Claim, bool, error) {
	if err := m.enter(ctx, "Owner"); err != nil {
		return ownership.Claim{}, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.live(kind, key)
	if e == nil {
		return ownership.Claim{}, false, nil
	}
	return e.claim(), true, nil
}

func (m *memory) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	if err := m.enter(ctx, "Pending"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var claims []ownership.Claim
	for _, e := range m.listed(kind, serialNumber) {
		claims = append(claims, e.claim())
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
}

func (m *memory) listed(kind ownership.Kind, serialNumber string) []*stored {
	var listed []*stored
	for _, e := range m.claims {
		if e.kind == kind && e.serialNumber == serialNumber && e.listed && time.Now().Before(e.ends) {
			listed = append(listed, e)
		}
	}
	slices.SortFunc(listed, func(a, b *stored) int { return a.ends.Compare(b.ends) })
	return listed
}

func (m *memory) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (bool, error) {
	if err := m.enter(ctx, "Claim"); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.live(kind, c.Key); e != nil {
		return e.Token == c.Token, m.leave("Claim")
	}
	if listed := m.listed(kind, serialNumber); len(listed) >= ownership.MaxPending {
		listed[0].listed = false
	}
	c.Owner = bytes.Clone(c.Owner)
	m.claims[string(kind)+c.Key] = &stored{c, kind, serialNumber, time.Now().Add(lifetime), true}
	return true, m.leave("Claim")
}

func (m *memory) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	if err := m.enter(ctx, "Release"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.live(kind, key); e != nil && e.Token == token && e.serialNumber == serialNumber {
		delete(m.claims, string(kind)+key)
	}
	return m.leave("Release")
}

var _ ownership.Store = (*memory)(nil)

// What the Service is tested with keeps the contract of stores.
func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.RunOwnership(t, func(*testing.T) ownership.Store { return newMemory() })
}
