package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// Model is the specification of activation.Store and ownership.Store: what is stored, and
// what every call answers and changes. It has no concurrency, no errors and no copies;
// Memory adds these. Everything in it may be changed at any time.
type Model struct {
	// Records are the registrations by identifier, with tombstones and simulated ones.
	Records map[string]*Entry
	// Handshakes are those that wait for a proof, by identifier, the oldest first.
	Handshakes map[string][]*Handshake
	// Owners are the owners of requests.
	Owners map[Request]*Owner
	// Secret is the sealed simulation secret, nil if there is none.
	Secret []byte
	// Reserved is the number of records for which room is reserved.
	Reserved int

	now       func() time.Time
	contended map[string]time.Time // when PutHandshake reported contention last
	kept      map[repeat.Digest]keptEntry
}

// Entry is a registration with its counters.
type Entry struct {
	activation.Record
	Expires time.Time
	// Reserved attempts are those of failed proofs and of the proofs in flight.
	Reserved int
	InFlight map[activation.Token]bool
	// Activations counts the successful proofs, Rights the devices that may still be added
	// for them.
	Activations, Rights int
	// Devices counts the AdmitDevice calls of KindAffinity, Confirmations the final calls,
	// both without those that were returned.
	Devices, Confirmations int
	Burned                 bool

	settled        activation.Token // the proof that was settled last
	settledOutcome bool
}

// Handshake is a handshake that waits for its proof.
type Handshake struct {
	activation.Handshake
	Expires time.Time
}

// Request names a pending login or signature.
type Request struct {
	Kind ownership.Kind
	Key  string
}

// Owner is the claim to a request.
type Owner struct {
	ownership.Claim
	SerialNumber string
	Expires      time.Time
	// Unlisted says that the claim gave way to a later one in the list of the device.
	Unlisted bool
}

func newModel(now func() time.Time) *Model {
	return &Model{
		Records: map[string]*Entry{}, Handshakes: map[string][]*Handshake{}, Owners: map[Request]*Owner{},
		now: now, contended: map[string]time.Time{}, kept: map[repeat.Digest]keptEntry{},
	}
}

func (m *Model) over(end time.Time) bool { return !m.now().Before(end) }

// Entry returns what is stored under an identifier, nil if there is nothing or it has
// ended. A burned registration ends TombstoneLifetime after its lifetime.
func (m *Model) Entry(id string) *Entry {
	e := m.Records[id]
	if e == nil {
		return nil
	}
	end := e.Expires
	if e.Burned {
		end = end.Add(activation.TombstoneLifetime)
	}
	if m.over(end) {
		delete(m.Records, id)
		return nil
	}
	e.Lifetime = e.Expires.Sub(m.now())
	return e
}

// live returns the registration if its lifetime has not passed.
func (m *Model) live(id string) *Entry {
	if e := m.Entry(id); e != nil && e.Lifetime > 0 {
		return e
	}
	return nil
}

func (m *Model) add(r activation.Record, lifetime time.Duration) *Entry {
	e := &Entry{Record: r, Expires: m.now().Add(lifetime), InFlight: map[activation.Token]bool{}}
	m.Records[r.Identifier] = e
	return e
}

// Waiting returns the handshakes that have not ended, the oldest first.
func (m *Model) Waiting(id string) []*Handshake {
	m.Handshakes[id] = slices.DeleteFunc(m.Handshakes[id], func(h *Handshake) bool { return m.over(h.Expires) })
	return m.Handshakes[id]
}

// forget removes the handshakes, and that contention was reported.
func (m *Model) forget(id string) {
	delete(m.Handshakes, id)
	delete(m.contended, id)
}

func (m *Model) create(r activation.Record, replaces activation.Generation) (existing activation.Record, created bool) {
	if e := m.Entry(r.Identifier); e != nil && e.Kind != activation.KindSimulated {
		if e.Generation == r.Generation {
			return activation.Record{}, true
		}
		if e.Generation != replaces {
			return withoutData(e.Record), false
		}
	}
	m.add(r, r.Lifetime)
	m.forget(r.Identifier)
	return activation.Record{}, true
}

func (m *Model) load(id string) (activation.Record, bool) {
	if e := m.Entry(id); e != nil {
		return withoutData(e.Record), true
	}
	return activation.Record{}, false
}

func (m *Model) put(id string, h activation.Handshake) (contended bool) {
	var kept []*Handshake
	for _, other := range m.Waiting(id) {
		contended = contended || other.Source != h.Source || other.Application != h.Application
		if other.Source != h.Source {
			kept = append(kept, other)
		}
	}
	kept = append(kept, &Handshake{h, m.now().Add(h.Lifetime)})
	m.Handshakes[id] = kept[max(0, len(kept)-activation.MaxHandshakes):]
	if h.Simulated && m.simulatedHandshakes() > MaxSimulated {
		m.Handshakes[id] = m.Handshakes[id][:len(m.Handshakes[id])-1]
	}
	if last, ok := m.contended[id]; ok && !m.over(last.Add(activation.ContentionInterval)) {
		return false
	}
	if contended {
		m.contended[id] = m.now()
	}
	return contended
}

func (m *Model) simulatedHandshakes() int {
	n := 0
	for id := range m.Handshakes {
		for _, h := range m.Waiting(id) {
			if h.Simulated {
				n++
			}
		}
	}
	return n
}

func (m *Model) simulatedRecords() int {
	n := 0
	for id := range m.Records {
		if e := m.Entry(id); e != nil && e.Kind == activation.KindSimulated {
			n++
		}
	}
	return n
}

func (m *Model) take(id string, token activation.Token, source activation.Tag, limit int) (activation.Handshake, bool) {
	waiting := m.Waiting(id)
	if len(waiting) == 0 {
		return activation.Handshake{}, false
	}
	i := slices.IndexFunc(waiting, func(h *Handshake) bool { return h.Source == source })
	if i < 0 {
		i = len(waiting) - 1
	}
	h := waiting[i].Handshake
	m.Handshakes[id] = slices.Concat(waiting[:i], waiting[i+1:])
	if m.Entry(id) == nil && h.Simulated && limit > 0 && m.simulatedRecords() < MaxSimulated {
		m.add(activation.Record{Identifier: id, Generation: h.Generation, Kind: activation.KindSimulated}, h.RecordLifetime)
	}
	e := m.live(id)
	if e == nil || e.Burned || e.Generation != h.Generation || e.Reserved >= limit {
		return activation.Handshake{}, false
	}
	e.Reserved++
	e.InFlight[token] = true
	return h, true
}

func (m *Model) settle(id string, s activation.Settlement) (activation.Record, bool) {
	e := m.Entry(id)
	if e == nil || e.Generation != s.Generation {
		return activation.Record{}, false
	}
	if !e.InFlight[s.Token] {
		if e.settled == s.Token && e.settledOutcome && !e.Burned {
			return e.Record, true
		}
		return activation.Record{}, false
	}
	delete(e.InFlight, s.Token)
	var result activation.Record
	exchanges := e.Kind == activation.KindMDL || e.Kind == activation.KindStandard
	ok := s.Proven && !e.Burned && exchanges && e.Lifetime > 0 && e.Activations < s.MaxActivations
	if ok {
		e.Reserved--
		e.Activations++
		e.Rights++
		result = e.Record
	}
	e.settled, e.settledOutcome = s.Token, ok
	if e.Reserved >= s.MaxAttempts && len(e.InFlight) == 0 {
		e.Burned, e.Verifier, e.Data = true, nil, nil
	}
	return result, ok
}

func (m *Model) admitDevice(id string, limit int) (activation.Record, bool) {
	e := m.live(id)
	switch {
	case e == nil:
		return activation.Record{}, false
	case e.Kind == activation.KindAffinity && e.Devices < limit:
		e.Devices++
	case e.Kind == activation.KindMDL && e.Rights > 0:
		e.Rights--
	default:
		return activation.Record{}, false
	}
	return withoutSecrets(e.Record), true
}

func (m *Model) returnDevice(id string, g activation.Generation) {
	e := m.Entry(id)
	switch {
	case e == nil || e.Generation != g:
	case e.Kind == activation.KindMDL:
		e.Rights = min(e.Rights+1, e.Activations)
	case e.Kind == activation.KindAffinity:
		e.Devices = max(e.Devices-1, 0)
	}
}

func (m *Model) confirm(id string, limit int, kinds []activation.Kind) (activation.Record, bool) {
	e := m.live(id)
	if e == nil || !slices.Contains(kinds, e.Kind) || e.Confirmations >= limit || e.Kind != activation.KindAffinity && e.Activations == 0 {
		return activation.Record{}, false
	}
	e.Confirmations++
	return withoutSecrets(e.Record), true
}

func (m *Model) returnConfirmation(id string, g activation.Generation) {
	if e := m.Entry(id); e != nil && e.Generation == g {
		e.Confirmations = max(e.Confirmations-1, 0)
	}
}

func (m *Model) inspect(id string) (activation.State, bool) {
	e := m.Entry(id)
	if e == nil {
		return activation.State{}, false
	}
	return activation.State{
		Record: withoutSecrets(e.Record), Burned: e.Burned,
		Attempts: e.Reserved, InFlight: len(e.InFlight), Activations: e.Activations,
		Devices: e.Devices + e.Rights, Confirmations: e.Confirmations,
	}, true
}

func (m *Model) burn(id string, limit int) (activation.Record, bool) {
	e := m.Entry(id)
	if e == nil || e.Kind == activation.KindSimulated {
		return activation.Record{}, false
	}
	e.Burned, e.Verifier, e.Data = true, nil, nil
	e.Reserved = max(e.Reserved, limit)
	if e.Kind == activation.KindAffinity {
		e.Devices, e.Confirmations = activation.MaxCounter, activation.MaxCounter
	} else {
		e.Activations, e.Rights = 0, 0
	}
	m.forget(id)
	return withoutSecrets(e.Record), true
}

func (m *Model) remove(id string, g activation.Generation) {
	if e := m.Entry(id); e != nil && e.Generation == g {
		delete(m.Records, id)
		m.forget(id)
	}
}

func (m *Model) simulationSecret(candidate []byte) []byte {
	if m.Secret == nil {
		m.Secret = candidate
	}
	return m.Secret
}

func (m *Model) replaceSimulationSecret(current, next []byte) bool {
	replaced := m.Secret != nil && slices.Equal(m.Secret, current)
	if replaced {
		m.Secret = next
	}
	return replaced
}

// owner returns the claim to a request, nil if there is none or it has ended.
func (m *Model) owner(r Request) *Owner {
	if o := m.Owners[r]; o != nil && !m.over(o.Expires) {
		return o
	}
	return nil
}

// listed returns the listed claims of a device, ordered by key.
func (m *Model) listed(kind ownership.Kind, serialNumber string) []*Owner {
	var listed []*Owner
	for r, o := range m.Owners {
		if r.Kind == kind && o.SerialNumber == serialNumber && !o.Unlisted && m.owner(r) != nil {
			listed = append(listed, o)
		}
	}
	slices.SortFunc(listed, func(a, b *Owner) int { return strings.Compare(a.Key, b.Key) })
	return listed
}

func (m *Model) claim(kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) bool {
	r := Request{kind, c.Key}
	if o := m.owner(r); o != nil {
		return o.Token == c.Token
	}
	if listed := m.listed(kind, serialNumber); len(listed) >= ownership.MaxPending {
		slices.MinFunc(listed, func(a, b *Owner) int { return a.Expires.Compare(b.Expires) }).Unlisted = true
	}
	m.Owners[r] = &Owner{Claim: c, SerialNumber: serialNumber, Expires: m.now().Add(lifetime)}
	return true
}

func (m *Model) release(r Request, token ownership.Token) {
	if o := m.owner(r); o != nil && o.Token == token {
		delete(m.Owners, r)
	}
}
