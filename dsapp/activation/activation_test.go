package activation_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
)

// world is a Service with its surroundings.
type world struct {
	*activation.Service
	t       testing.TB
	profile *srp.Profile // of new registrations
	store   *storetest.Memory
	clock   *clock.Clock
	logs    *output.Buffer
	config  activation.Config

	mu     sync.Mutex
	alarms []string

	registrationLifetime, handshakeLifetime time.Duration
	maxAttempts, maxActivations             int
}

func testKey(n byte) []byte {
	sum := sha256.Sum256([]byte{n})
	return sum[:]
}

// opens is a Config.Open that gives a store and a ring of keys.
func opens(tb testing.TB, store activation.Store, keys ...byte) func(context.Context) (activation.Store, *seal.Keyring, error) {
	tb.Helper()
	all := make([][]byte, 0, len(keys))
	for _, k := range keys {
		all = append(all, testKey(k))
	}
	ring, err := seal.NewKeyring(all...)
	if err != nil {
		tb.Fatal(err)
	}
	return func(context.Context) (activation.Store, *seal.Keyring, error) { return store, ring, nil }
}

// newWorld returns a Service over an empty store. Each change is applied to its
// configuration.
func newWorld(tb testing.TB, changes ...func(*activation.Config)) *world {
	tb.Helper()
	w := &world{t: tb, clock: clock.New(), logs: &output.Buffer{}}
	w.store = storetest.NewMemory(w.clock.Now)
	w.config = activation.Config{
		Open:     opens(tb, w.store, 1),
		Profiles: using(tb, srp.DefaultProfile),
		Logger:   slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Alarm: func(_ context.Context, a seal.Alarm) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.alarms = append(w.alarms, string(a.Event)+" "+a.Registration)
		},
		Now: w.clock.Now,
	}
	w.restart(changes...)
	return w
}

// restart replaces the Service by a new one over the same store.
func (w *world) restart(changes ...func(*activation.Config)) {
	w.t.Helper()
	for _, change := range changes {
		change(&w.config)
	}
	s, err := activation.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service, w.profile = s, w.config.Profiles[0].(*srp.Profile)
	w.registrationLifetime = cmp.Or(w.config.RegistrationLifetime, activation.DefaultRegistrationLifetime)
	w.handshakeLifetime = cmp.Or(w.config.HandshakeLifetime, activation.DefaultHandshakeLifetime)
	w.maxAttempts = cmp.Or(w.config.MaxAttempts, activation.DefaultMaxAttempts)
	w.maxActivations = cmp.Or(w.config.MaxActivations, activation.DefaultMaxActivations)
}

// peek calls f with the entry of an identifier, nil if there is none.
func (w *world) peek(identifier form.Identifier, f func(*storetest.Entry)) {
	w.store.Do(func(m *storetest.Model) { f(m.Entry(string(identifier))) })
}

// last returns the handshake that was put last.
func (w *world) last(identifier string) (h *storetest.Handshake) {
	w.store.Do(func(m *storetest.Model) { waiting := m.Waiting(identifier); h = waiting[len(waiting)-1] })
	return h
}

// secret returns the sealed simulation secret.
func (w *world) secret() (sealed []byte) {
	w.store.Do(func(m *storetest.Model) { sealed = m.Secret })
	return sealed
}

func (w *world) setSecret(sealed []byte) { w.store.Do(func(m *storetest.Model) { m.Secret = sealed }) }

// hook returns a hook that calls f.
func hook(f func()) storetest.Hook {
	return func(context.Context) error { f(); return nil }
}

func newGeneration() (g activation.Generation) {
	rand.Read(g[:])
	return g
}

func (w *world) takeAlarms() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.alarms
	w.alarms = nil
	return a
}

const message = "0a1B2c3D4e5F60718293A4B5C6D7E8F9"

func (w *world) mdl(identifier form.Identifier) activation.Registration {
	return activation.Registration{
		Identifier: identifier, Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"}, Data: activation.ActivationData{ActivationMessage: message}, Started: w.clock.Now(),
	}
}

func (w *world) standard(identifier form.Identifier) activation.Registration {
	return activation.Registration{
		Identifier: identifier, Kind: activation.KindStandard, Subject: form.Subject{UserID: "jane.doe", Instance: "primary"},
		Data: activation.ActivationData{ActivationCode: "1234-5678", EventReactivationCounter: "000042"}, Started: w.clock.Now(),
	}
}

func (w *world) affinity(identifier form.Identifier) activation.Registration {
	return activation.Registration{Identifier: identifier, Kind: activation.KindAffinity, Subject: form.Subject{UserID: "jane.doe", Instance: "backup"}, Started: w.clock.Now()}
}

func (w *world) register(r activation.Registration) activation.Registered {
	w.t.Helper()
	got, err := w.Register(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// home is where calls come from in tests that do not depend on it.
var home = activation.Origin{Address: "192.0.2.1", Application: "mobile-app"}

// phone is a client between the two calls.
type phone struct {
	w          *world
	from       activation.Origin
	identifier string
	client     *srp.Client
	public     []byte
	challenge  activation.Challenge
	server     []byte
	evidence   string
}

// begin makes the first call and computes the evidence for the second.
func (w *world) begin(identifier form.Identifier, password string) *phone {
	w.t.Helper()
	return w.beginFrom(home, identifier, password)
}

func (w *world) beginFrom(from activation.Origin, identifier form.Identifier, password string) *phone {
	w.t.Helper()
	return w.beginAs(from, w.profile, identifier, password)
}

// beginEverywhere makes a first call from each of several addresses but home.
func (w *world) beginEverywhere(identifier form.Identifier) {
	w.t.Helper()
	for i := range activation.MaxHandshakes - 1 {
		w.beginFrom(at(2+i), identifier, "any password")
	}
}

// beginAs makes the first call as an application of the profile p.
func (w *world) beginAs(from activation.Origin, p *srp.Profile, identifier form.Identifier, password string) *phone {
	w.t.Helper()
	c, err := p.NewClient(string(identifier), password)
	if err != nil {
		w.t.Fatal(err)
	}
	from.Profile = p.Name()
	ph := &phone{w: w, from: from, identifier: string(identifier), client: c, public: c.Public()}
	if ph.challenge, err = w.Begin(context.Background(), identifier, form.ClientPublic(hex.EncodeToString(ph.public)), from); err != nil {
		w.t.Fatal(err)
	}
	if ph.server, err = hex.DecodeString(ph.challenge.ServerPublic); err != nil {
		w.t.Fatal(err)
	}
	salt, err := hex.DecodeString(ph.challenge.Salt)
	if err != nil {
		w.t.Fatal(err)
	}
	m1, err := c.Prove(salt, ph.server)
	if err != nil {
		w.t.Fatal(err)
	}
	ph.evidence = hex.EncodeToString(m1)
	return ph
}

func (p *phone) prove() (activation.Proof, error) {
	return p.w.Prove(context.Background(), form.Identifier(p.identifier), form.ClientEvidence(p.evidence), p.from)
}

// open verifies the server's evidence and opens the activation data.
func (p *phone) open(proof activation.Proof) activation.ActivationData {
	p.w.t.Helper()
	m2, err := hex.DecodeString(proof.Evidence)
	if err != nil {
		p.w.t.Fatal(err)
	}
	key, err := p.client.Confirm(m2)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return opened(p.w.t, srp.NewSession(key, p.public, p.server), proof)
}

// opened opens the activation data of a proof.
func opened(t testing.TB, transport *srp.Session, proof activation.Proof) activation.ActivationData {
	t.Helper()
	item := func(name seal.Item, s *form.Sealed) string {
		if s == nil {
			return ""
		}
		var c seal.Ciphertext
		for _, part := range []struct {
			to   *[]byte
			from string
		}{{&c.Data, s.Data}, {&c.Counter, s.Counter}, {&c.MAC, s.MAC}} {
			if part.from != strings.ToUpper(part.from) {
				t.Errorf("%s is not upper-case hex", name)
			}
			b, err := hex.DecodeString(part.from)
			if err != nil {
				t.Fatal(err)
			}
			*part.to = b
		}
		plaintext, err := transport.Open(name, c)
		if err != nil {
			t.Fatal(err)
		}
		return string(plaintext)
	}
	return activation.ActivationData{
		ActivationMessage:        form.ActivationMessage(item(seal.LicenseActivationMessage, proof.LicenseActivationMessage)),
		ActivationCode:           form.ActivationCode(item(seal.ActivationCode, proof.ActivationCode)),
		EventReactivationCounter: form.EventCounter(item(seal.EventReactivationCounter, proof.EventReactivationCounter)),
	}
}

// activate makes both calls.
func (w *world) activate(identifier form.Identifier, password string) error {
	w.t.Helper()
	_, err := w.begin(identifier, password).prove()
	return err
}

// refused fails unless err is the one refusal and p is empty.
func refused(tb testing.TB, p activation.Proof, err error) {
	tb.Helper()
	if !same(err, activation.ErrRefused) || p != (activation.Proof{}) {
		tb.Errorf("got %+v, %v, want the one refusal", p, err)
	}
}

// same reports whether err is want and says no more than want.
func same(err, want error) bool {
	return errors.Is(err, want) && (err == nil || err.Error() == want.Error())
}

// burn spends all attempts of an identifier.
func (w *world) burn(identifier form.Identifier) {
	w.t.Helper()
	for range w.maxAttempts {
		p, err := w.begin(identifier, "wrong password").prove()
		refused(w.t, p, err)
	}
}

func profile(tb testing.TB, name string) *srp.Profile {
	tb.Helper()
	p, err := srp.LookupProfile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// using returns all profiles, that of the name first.
func using(tb testing.TB, name string) []activation.Profile {
	tb.Helper()
	all := []activation.Profile{profile(tb, name)}
	for _, p := range srp.Profiles() {
		if p.Name() != name {
			all = append(all, p)
		}
	}
	return all
}

// A phone that knows the password gets the activation data as it was registered,
// an activation message as upper-case hex, under every profile.
func TestExchange(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"rfc5054-2048-sha256", "rfc5054-3072-sha256", "rfc5054-4096-sha256"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *activation.Config) { c.Profiles = using(t, name) })
			size := w.profile.Size()
			for _, c := range []struct {
				r    activation.Registration
				want activation.ActivationData
			}{
				{w.mdl("e3wfISG9"), activation.ActivationData{ActivationMessage: form.ActivationMessage(strings.ToUpper(message))}},
				{w.standard(""), w.standard("").Data},
				{w.standard("given-1"), w.standard("").Data},
			} {
				r := w.register(c.r)
				p := w.begin(r.Identifier, r.Password)
				if len(p.challenge.ServerPublic) != 2*size || len(p.challenge.Salt) != 32 || strings.ToUpper(p.challenge.ServerPublic+p.challenge.Salt) != p.challenge.ServerPublic+p.challenge.Salt {
					t.Errorf("challenge %+v", p.challenge)
				}
				proof, err := p.prove()
				if err != nil {
					t.Fatal(err)
				}
				if got := p.open(proof); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			}
		})
	}
}

// A standard licence without an event counter has no such item.
func TestStandardWithoutCounter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.standard("")
	r.Data.EventReactivationCounter = ""
	reg := w.register(r)
	p := w.begin(reg.Identifier, reg.Password)
	proof, err := p.prove()
	if err != nil {
		t.Fatal(err)
	}
	if proof.EventReactivationCounter != nil || proof.LicenseActivationMessage != nil || p.open(proof) != r.Data {
		t.Errorf("got %+v", proof)
	}
}

// A phone may send A in either case and without leading zeros, M1 in either case.
func TestDigitsInEitherCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	for _, write := range []func(string) string{strings.ToUpper, strings.ToLower, func(s string) string { return strings.TrimLeft(s, "0") }} {
		c, err := w.profile.NewClient(string(r.Identifier), r.Password)
		if err != nil {
			t.Fatal(err)
		}
		ch, err := w.Begin(t.Context(), r.Identifier, form.ClientPublic(write(hex.EncodeToString(c.Public()))), home)
		if err != nil {
			t.Fatal(err)
		}
		salt, _ := hex.DecodeString(ch.Salt)
		b, _ := hex.DecodeString(ch.ServerPublic)
		m1, err := c.Prove(salt, b)
		if err != nil {
			t.Fatal(err)
		}
		m1hex := hex.EncodeToString(m1)
		if write("aF") == "AF" {
			m1hex = strings.ToUpper(m1hex)
		}
		if _, err := w.Prove(t.Context(), r.Identifier, form.ClientEvidence(m1hex), home); err != nil {
			t.Error(err)
		}
	}
}

// The form of A is checked first, for every identifier in the same way and without
// calling the store.
func TestClientPublicIsCheckedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("known-id"))
	w.begin("known-id", "wrong password") // everything lazy has happened
	w.store.TakeCalls()
	n := w.profile.Size()
	for _, c := range []struct{ name, digits, problem string }{
		{"missing", "", "is missing"},
		{"not hex", "xyz", "is not hexadecimal"},
		{"space", " 12", "is not hexadecimal"},
		{"sign", "-12", "is not hexadecimal"},
		{"too long", strings.Repeat("1", 2*n+1), "is too long"},
		{"too long with zeros", strings.Repeat("0", 2*n+2) + "2", "is too long"},
		{"zero", "0", "is out of range"},
		{"one", strings.Repeat("0", 2*n-1) + "1", "is out of range"},
		{"N-1", plus(prime, -1), "is out of range"},
		{"N", prime, "is out of range"},
		{"N+1", plus(prime, 1), "is out of range"},
		{"all ones", strings.Repeat("F", 2*n), "is out of range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, identifier := range []string{"known-id", "unknown-id", "no such form!", ""} {
				got, err := w.Begin(t.Context(), form.Identifier(identifier), form.ClientPublic(c.digits), home)
				var invalid *activation.InvalidError
				if !errors.As(err, &invalid) || *invalid != (activation.InvalidError{"clientEphemeralPublicKey", c.problem}) || got != (activation.Challenge{}) {
					t.Errorf("%q: got %+v, %v", identifier, got, err)
				}
			}
		})
	}
	for _, digits := range []string{"2", plus(prime, -2)} {
		if _, err := w.Begin(t.Context(), "unknown-id", form.ClientPublic(digits), home); err != nil {
			t.Errorf("a value inside the range: %v", err)
		}
		w.store.TakeCalls()
	}
	if calls := w.store.TakeCalls(); len(calls) != 0 {
		t.Errorf("the store was asked: %v", calls)
	}
}

// Evidence of the wrong form uses nothing up: the handshake can still be used.
func TestEvidenceFormIsCheckedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)
	w.store.TakeCalls()
	for _, c := range []struct{ evidence, problem string }{
		{"", "is missing"},
		{"1" + p.evidence, "is too long"},
		{"01" + p.evidence, "is too long"},
		{"0000" + p.evidence, "is too long"},
		{p.evidence[:63] + "g", "is not hexadecimal"},
	} {
		for _, identifier := range []string{string(r.Identifier), "unknown-id", "?"} {
			got, err := w.Prove(t.Context(), form.Identifier(identifier), form.ClientEvidence(c.evidence), home)
			var invalid *activation.InvalidError
			if !errors.As(err, &invalid) || *invalid != (activation.InvalidError{"clientEvidenceMessage", c.problem}) || got != (activation.Proof{}) {
				t.Errorf("%q, %q: got %+v, %v", identifier, c.evidence, got, err)
			}
		}
	}
	if calls := w.store.TakeCalls(); len(calls) != 0 {
		t.Errorf("the store was asked: %v", calls)
	}
	if _, err := p.prove(); err != nil {
		t.Errorf("the handshake was used up: %v", err)
	}
}

// A Service without a logger, alarm and clock works.
func TestMinimalConfig(t *testing.T) {
	t.Parallel()
	s, err := activation.New(activation.Config{Open: opens(t, storetest.NewMemory(time.Now), 1), Profiles: using(t, srp.DefaultProfile)})
	if err != nil {
		t.Fatal(err)
	}
	r := activation.Registration{Identifier: "e3wfISG9", Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane", Instance: "primary"}, Data: activation.ActivationData{ActivationMessage: message}, Started: time.Now()}
	if _, err := s.Register(t.Context(), r); err != nil {
		t.Error(err)
	}
	r.UserID = "john"
	if _, err := s.Register(t.Context(), r); !same(err, activation.ErrExists) {
		t.Errorf("got %v", err)
	}
}

// The kernel that computes exchanges is logged once, even if Prepare is called again.
func TestKernelLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2 {
		if err := w.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p := profile(t, srp.DefaultProfile)
	if want := "level=INFO msg=\"srp kernel\" kernel=" + p.Kernel() + " profile=" + p.Name() + "\n"; strings.Count(w.logs.String(), want) != 1 {
		t.Errorf("not once %q in %s", want, w.logs)
	}
	if strings.Contains(w.logs.String(), "level=WARN") {
		t.Errorf("a warning without a reason: %s", w.logs)
	}
}

// Reserve asks the store for room, which is kept until the release. It fails if the keys
// are missing.
func TestReserve(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reserved := func() (n int) {
		w.store.Do(func(m *storetest.Model) { n = m.Reserved })
		return n
	}
	release, err := w.Reserve(t.Context())
	if n := reserved(); err != nil || n != 1 {
		t.Fatalf("%d reserved, error %v", n, err)
	}
	release()
	if n := reserved(); n != 0 {
		t.Errorf("%d reserved after the release", n)
	}
	w.store.Fail("Reserve", errors.New("read only"))
	if _, err := w.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	w.store.Fail("Reserve", nil)
	w.restart(func(c *activation.Config) {
		c.Open = func(context.Context) (activation.Store, *seal.Keyring, error) {
			return w.store, nil, errors.New("no key file")
		}
	})
	if _, err := w.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// The room that stores reserve is enough for the longest registration.
func TestMaxRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.Profiles = using(t, "rfc5054-4096-sha256") })
	mdl, standard := w.mdl("e3wfISG9"), w.standard("given-1")
	mdl.Data.ActivationMessage = form.ActivationMessage(strings.Repeat("A0", form.ActivationMessage("").Rule().Max/2))
	standard.Data.ActivationCode = form.ActivationCode(strings.Repeat("1", form.ActivationCode("").Rule().Max))
	standard.Data.EventReactivationCounter = form.EventCounter(strings.Repeat("1", form.EventCounter("").Rule().Max))
	for _, r := range []activation.Registration{mdl, standard} {
		for _, fact := range []*string{&r.UserID, &r.Domain, &r.SerialNumber, &r.Instance} {
			*fact = strings.Repeat("x", form.MaxStoredText)
		}
		// TestLongestAnswer in package gateway has the size of answers.
		r.Answer = func(activation.Registered) ([]byte, error) { return make([]byte, 4096), nil }
		w.register(r)
		w.peek(r.Identifier, func(e *storetest.Entry) {
			if size := len(e.Facts) + len(e.Verifier) + len(e.Data) + len(e.Answer); size > activation.MaxRecord {
				t.Errorf("a record of kind %s has %d bytes, want %d at most", r.Kind, size, activation.MaxRecord)
			}
		})
	}
}

// prime is N of the 2048-bit group of RFC 5054, appendix A.
const prime = "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050" +

	"A37329CBB4A099ED8193E0757767A13DD52312AB4B03310DCD7F48A9DA04FD50" +
	"E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B8" +
	"55F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773B" +
	"CA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748" +
	"544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6" +
	"AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB6" +
	"94B5C803D89F7AE435DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73"

func plus(digits string, n int64) string {
	v, _ := new(big.Int).SetString(digits, 16)
	return v.Add(v, big.NewInt(n)).Text(16)
}
