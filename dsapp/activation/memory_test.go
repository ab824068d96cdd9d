package activation

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// memory is a Store that follows the contract in one map. It counts calls, can
// fail them, and keeps every byte it was ever given.
type memory struct {
	now func() time.Time

	mu         sync.Mutex
	records    map[string]*stored
	handshakes map[string][]*waiting // oldest first
	told       map[string]time.Time
	secret     []byte
	calls      []string
	reserved   int // room for so many records
	seen       bytes.Buffer

	// fail makes the named method return an error instead of doing anything.
	fail map[string]error
	// before runs at the start of the named method, without the lock.
	before map[string]func()
	// after runs at the end of the named method, without the lock.
	after map[string]func()
}

type stored struct {
	Record
	expires                                                          time.Time
	reserved, activations, rights, devices, confirmations, won, lost int
	inFlight                                                         map[Token]bool
	burned                                                           bool
	last                                                             Token
	lastOutcome                                                      bool
}

type waiting struct {
	Handshake
	expires time.Time
}

var _ Store = (*memory)(nil)

func newMemory(now func() time.Time) *memory {
	return &memory{
		now: now, records: map[string]*stored{}, handshakes: map[string][]*waiting{}, told: map[string]time.Time{},
		fail: map[string]error{}, before: map[string]func(){}, after: map[string]func(){},
	}
}

// call takes the lock and returns what releases it.
func (m *memory) call(ctx context.Context, method string, seen ...[]byte) (done func(), err error) {
	m.mu.Lock()
	before, after := m.before[method], m.after[method]
	m.mu.Unlock()
	if before != nil {
		before()
	}
	m.mu.Lock()
	m.calls = append(m.calls, method)
	for _, b := range seen {
		m.seen.Write(b)
	}
	done = func() {
		m.mu.Unlock()
		if after != nil {
			after()
		}
	}
	err = m.fail[method]
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		done()
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return done, nil
}

// entry returns what there is of an identifier, tombstones included.
func (m *memory) entry(identifier string) *stored {
	e := m.records[identifier]
	if e == nil {
		return nil
	}
	end := e.expires
	if e.burned {
		end = end.Add(TombstoneLifetime)
	}
	if !m.now().Before(end) {
		delete(m.records, identifier)
		return nil
	}
	e.Lifetime = e.expires.Sub(m.now())
	return e
}

// live returns the record if its lifetime has not passed.
func (m *memory) live(identifier string) *stored {
	if e := m.entry(identifier); e != nil && e.Lifetime > 0 {
		return e
	}
	return nil
}

// waiting returns the handshakes that have not ended.
func (m *memory) waiting(identifier string) []*waiting {
	all := slices.DeleteFunc(m.handshakes[identifier], func(h *waiting) bool { return !m.now().Before(h.expires) })
	m.handshakes[identifier] = all
	return all
}

// last returns the handshake that was put last, nil if none waits.
func (m *memory) last(identifier string) *waiting {
	all := m.waiting(identifier)
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// forget removes the handshakes and that something was told.
func (m *memory) forget(identifier string) {
	delete(m.handshakes, identifier)
	delete(m.told, identifier)
}

func (m *memory) Reserve(ctx context.Context) (func(), error) {
	done, err := m.call(ctx, "Reserve")
	if err != nil {
		return nil, err
	}
	defer done()
	m.reserved++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reserved--
	}), nil
}

func (m *memory) Create(ctx context.Context, r Record, replaces Generation) (Record, bool, error) {
	done, err := m.call(ctx, "Create", r.Facts, r.Verifier, r.Data)
	if err != nil {
		return Record{}, false, err
	}
	defer done()
	if e := m.entry(r.Identifier); e != nil && e.Kind != KindSimulated {
		if e.Generation == r.Generation {
			return Record{}, true, nil
		}
		if e.Generation != replaces {
			return without(e.Record, true, false), false, nil
		}
	}
	m.records[r.Identifier] = &stored{Record: r, expires: m.now().Add(r.Lifetime), inFlight: map[Token]bool{}}
	m.forget(r.Identifier)
	return Record{}, true, nil
}

func (m *memory) Load(ctx context.Context, identifier string) (Record, bool, error) {
	done, err := m.call(ctx, "Load")
	if err != nil {
		return Record{}, false, err
	}
	defer done()
	e := m.entry(identifier)
	if e == nil {
		return Record{}, false, nil
	}
	return without(e.Record, true, false), true, nil
}

func (m *memory) PutHandshake(ctx context.Context, identifier string, h Handshake) (bool, error) {
	done, err := m.call(ctx, "PutHandshake", h.State, h.Source[:], h.Application[:])
	if err != nil {
		return false, err
	}
	defer done()
	all := m.waiting(identifier)
	contended := slices.ContainsFunc(all, func(w *waiting) bool { return w.Source != h.Source || w.Application != h.Application })
	if told, ok := m.told[identifier]; ok && m.now().Before(told.Add(ContentionInterval)) {
		contended = false
	}
	if contended {
		m.told[identifier] = m.now()
	}
	all = slices.DeleteFunc(all, func(w *waiting) bool { return w.Source == h.Source })
	all = append(all, &waiting{h, m.now().Add(h.Lifetime)})
	m.handshakes[identifier] = all[max(0, len(all)-MaxHandshakes):]
	return contended, nil
}

func (m *memory) Take(ctx context.Context, identifier string, token Token, source Tag, maxAttempts int) (Handshake, bool, error) {
	done, err := m.call(ctx, "Take")
	if err != nil {
		return Handshake{}, false, err
	}
	defer done()
	all := m.waiting(identifier)
	if len(all) == 0 {
		return Handshake{}, false, nil
	}
	i := slices.IndexFunc(all, func(w *waiting) bool { return w.Source == source })
	if i < 0 {
		i = len(all) - 1
	}
	h := all[i]
	m.handshakes[identifier] = slices.Delete(slices.Clone(all), i, i+1)
	if m.entry(identifier) == nil && h.Simulated {
		m.records[identifier] = &stored{
			Record:  Record{Identifier: identifier, Generation: h.Generation, Kind: KindSimulated},
			expires: m.now().Add(h.RecordLifetime), inFlight: map[Token]bool{},
		}
	}
	e := m.live(identifier)
	if e == nil || e.burned || e.Generation != h.Generation || e.reserved >= maxAttempts {
		return Handshake{}, false, nil
	}
	e.reserved++
	e.inFlight[token] = true
	return h.Handshake, true, nil
}

func (m *memory) Settle(ctx context.Context, identifier string, s Settlement) (Record, bool, error) {
	done, err := m.call(ctx, "Settle")
	if err != nil {
		return Record{}, false, err
	}
	defer done()
	e := m.entry(identifier)
	if e == nil || e.Generation != s.Generation {
		return Record{}, false, nil
	}
	if !e.inFlight[s.Token] {
		if e.last == s.Token && e.lastOutcome && !e.burned {
			return e.Record, true, nil
		}
		return Record{}, false, nil
	}
	delete(e.inFlight, s.Token)
	if s.Proven {
		e.won++
	} else {
		e.lost++
	}
	var result Record
	ok := s.Proven && e.activations < s.MaxActivations && e.Lifetime > 0 && (e.Kind == KindMDL || e.Kind == KindStandard)
	if ok {
		e.reserved--
		e.activations++
		e.rights++
		result = e.Record
	}
	e.last, e.lastOutcome = s.Token, ok
	if e.reserved >= s.MaxAttempts && len(e.inFlight) == 0 {
		e.burned, e.Verifier, e.Data = true, nil, nil
	}
	return result, ok, nil
}

func (m *memory) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (Record, bool, error) {
	done, err := m.call(ctx, "AdmitDevice")
	if err != nil {
		return Record{}, false, err
	}
	defer done()
	e := m.live(identifier)
	switch {
	case e == nil:
		return Record{}, false, nil
	case e.Kind == KindAffinity && e.devices < maxAttempts:
		e.devices++
	case e.Kind == KindMDL && e.rights > 0:
		e.rights--
	default:
		return Record{}, false, nil
	}
	return without(e.Record, false, false), true, nil
}

func (m *memory) ReturnDevice(ctx context.Context, identifier string, generation Generation) error {
	return m.giveBack(ctx, "ReturnDevice", identifier, generation, func(e *stored) {
		switch e.Kind {
		case KindMDL:
			e.rights = min(e.rights+1, e.activations)
		case KindAffinity:
			e.devices = max(e.devices-1, 0)
		}
	})
}

func (m *memory) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...Kind) (Record, bool, error) {
	done, err := m.call(ctx, "AdmitConfirmation")
	if err != nil {
		return Record{}, false, err
	}
	defer done()
	e := m.live(identifier)
	if e == nil || !slices.Contains(kinds, e.Kind) || e.confirmations >= maxAttempts || e.Kind != KindAffinity && e.activations == 0 {
		return Record{}, false, nil
	}
	e.confirmations++
	return without(e.Record, false, false), true, nil
}

func (m *memory) ReturnConfirmation(ctx context.Context, identifier string, generation Generation) error {
	return m.giveBack(ctx, "ReturnConfirmation", identifier, generation, func(e *stored) {
		e.confirmations = max(e.confirmations-1, 0)
	})
}

// giveBack applies change to the entry if it is of the generation.
func (m *memory) giveBack(ctx context.Context, method, identifier string, generation Generation, change func(*stored)) error {
	done, err := m.call(ctx, method)
	if err != nil {
		return err
	}
	defer done()
	if e := m.entry(identifier); e != nil && e.Generation == generation {
		change(e)
	}
	return nil
}

func (m *memory) Remove(ctx context.Context, identifier string, generation Generation) error {
	done, err := m.call(ctx, "Remove")
	if err != nil {
		return err
	}
	defer done()
	if e := m.entry(identifier); e != nil && e.Generation == generation {
		delete(m.records, identifier)
		m.forget(identifier)
	}
	return nil
}

func (m *memory) SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error) {
	done, err := m.call(ctx, "SimulationSecret", candidate)
	if err != nil {
		return nil, err
	}
	defer done()
	if m.secret == nil {
		m.secret = bytes.Clone(candidate)
	}
	return bytes.Clone(m.secret), nil
}

func (m *memory) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error) {
	done, err := m.call(ctx, "ReplaceSimulationSecret", next)
	if err != nil {
		return false, err
	}
	defer done()
	if m.secret == nil || !bytes.Equal(m.secret, current) {
		return false, nil
	}
	m.secret = bytes.Clone(next)
	return true, nil
}

func without(r Record, verifier, data bool) Record {
	if !verifier {
		r.Verifier = nil
	}
	if !data {
		r.Data = nil
	}
	return r
}

// take returns the calls since the last take.
func (m *memory) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}

// peek runs f with the entry of an identifier, nil if there is none.
func (m *memory) peek(identifier form.Identifier, f func(*stored)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.entry(string(identifier)))
}

// set changes the maps of hooks under the lock.
func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
