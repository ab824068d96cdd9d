// Package profiletest has the conformance tests of activation.Profile. They cover everything
// that activation.Service relies on. A test of a profile calls Run.
package profiletest

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/internal/timing"
)

// Subject is the profile to test.
type Subject struct {
	Profile activation.Profile
	// Prime is the modulus of the group. Public values are smaller.
	Prime *big.Int
	// EvidenceWithoutIdentifier says that the evidence of the profile does not depend on the
	// identifier. Only the credential does then; the Service keeps each state with its
	// identifier.
	EvidenceWithoutIdentifier bool
	// NewPhone returns the phone's side of one exchange.
	NewPhone func(tb testing.TB, identifier, password string) Phone
}

// Phone is the phone's side of one exchange. The tests call its methods in this order. All
// numbers are in hexadecimal digits.
type Phone interface {
	// Public returns the client's public value with leading zeros.
	Public() string
	// Prove returns the client's evidence with leading zeros.
	Prove(serverPublic, salt string) (evidence string, err error)
	// Confirm checks the server's evidence.
	Confirm(serverEvidence string) error
	// Open opens a sealed item.
	Open(item seal.Item, c seal.Ciphertext) ([]byte, error)
}

// Identifier and right password of most exchanges.
const (
	identifier = "e3wfISG9"
	password   = "Tb048aX1"
)

// tolerance is the factor by which the medians of times may differ.
const tolerance = 1.10

var secret = bytes.Repeat([]byte{0x5E}, 32)

// Run tests that the profile keeps the contract of activation.Profile. It compares times, so
// it must not run in parallel with other tests.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(suite)
	}{
		{"the name fits into a stored record", testName},
		{"a phone with the right password opens what was sealed, whatever form its numbers have", testRoundTrips},
		{"leading zeros of a public value may be missing", testLeadingZeros},
		{"wrong evidence is refused without a result", testWrongEvidence},
		{"invalid public values are refused", testPublicValues},
		{"invalid evidence is refused", testEvidence},
		{"every answer is new", testNewAnswers},
		{"simulated credentials look like real ones", testSimulated},
		{"each item is sealed once, and none after Clear", testSealing},
		{"invalid credentials are refused", testInvalidCredentials},
		{"the time does not reveal whether an identifier is known", testTimes},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(suite{t, s}) })
	}
}

type suite struct {
	*testing.T
	Subject
}

// exchange is an exchange between its two calls.
type exchange struct {
	Subject
	phone                              Phone
	state                              []byte
	serverPublic, salt, clientEvidence string
}

// begin makes the first call of an exchange. form changes how the phone writes its public
// value.
func (s Subject) begin(t *testing.T, credential []byte, phone Phone, form func(string) string) *exchange {
	t.Helper()
	a, err := s.Profile.ParsePublic(form(phone.Public()))
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{Subject: s, phone: phone, state: make([]byte, s.Profile.StateSize())}
	kept := bytes.Clone(credential)
	if x.serverPublic, x.salt, err = s.Profile.Begin(x.state, credential, a); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(credential, kept) {
		t.Error("the credential was changed")
	}
	if x.clientEvidence, err = phone.Prove(x.serverPublic, x.salt); err != nil {
		t.Fatal(err)
	}
	return x
}

// known begins an exchange for an identifier that is known, with the password that the user
// enters.
func (s Subject) known(t *testing.T, given string) *exchange {
	t.Helper()
	return s.begin(t, s.Profile.Credential(secret, identifier, password), s.NewPhone(t, identifier, given), strings.Clone)
}

// verify makes the second call of an exchange. form changes how the phone writes its
// evidence.
func (x *exchange) verify(t *testing.T, form func(string) string) (session seal.Session, serverEvidence string, ok bool) {
	t.Helper()
	evidence, err := x.Profile.ParseEvidence(form(x.clientEvidence))
	if err != nil {
		t.Fatal(err)
	}
	return x.Profile.Verify(x.state, identifier, evidence)
}

// refused fails the test unless the evidence is refused without a result.
func (x *exchange) refused(t *testing.T, what, identifier string, evidence []byte) {
	t.Helper()
	session, serverEvidence, ok := x.Profile.Verify(bytes.Clone(x.state), identifier, evidence)
	switch {
	case ok:
		t.Errorf("%s: evidence is taken", what)
	case serverEvidence != "":
		t.Errorf("%s: the server's evidence must not be given before the client's is verified, got %q", what, serverEvidence)
	case session != nil:
		t.Errorf("%s: wrong evidence must not give a session", what)
	}
}

func testName(s suite) {
	if n := s.Profile.Name(); n == "" || len(n) > 32 || strings.HasSuffix(n, "\x00") {
		s.Errorf("the name must have 1 to 32 bytes and not end with a zero byte, it is %q", n)
	}
}

// forms has the ways in which libraries write a number.
var forms = map[string]func(string) string{
	"as it is":    strings.Clone,
	"upper case":  strings.ToUpper,
	"lower case":  strings.ToLower,
	"sign byte":   func(digits string) string { return "00" + digits },
	"sign digit":  func(digits string) string { return "0" + digits },
	"no zeros":    func(digits string) string { return strings.TrimLeft(digits, "0") },
	"even digits": func(digits string) string { return strings.TrimPrefix(digits, "00") },
}

func testRoundTrips(s suite) {
	for name, form := range forms {
		x := s.begin(s.T, s.Profile.Credential(secret, identifier, password), s.NewPhone(s.T, identifier, password), form)
		session, serverEvidence, ok := x.verify(s.T, form)
		if !ok {
			s.Fatalf("%s: right evidence is refused", name)
		}
		if err := x.phone.Confirm(serverEvidence); err != nil {
			s.Errorf("%s: %v", name, err)
		}
		for item, want := range plaintexts {
			c, err := session.Seal(item, []byte(want))
			if err != nil {
				s.Fatalf("%s: %s: %v", name, item, err)
			}
			if got, err := x.phone.Open(item, c); err != nil || string(got) != want {
				s.Errorf("%s: %s was opened to %q, %v", name, item, got, err)
			}
		}
		session.Clear()
	}
}

// plaintexts has an example of each item.
var plaintexts = map[seal.Item]string{
	seal.LicenseActivationMessage: strings.Repeat("0A1B2C3D", 529), // 4232 characters
	seal.ActivationCode:           "1234-5678",
	seal.EventReactivationCounter: "42",
}

func testLeadingZeros(s suite) {
	credential := s.Profile.Credential(secret, identifier, password)
	phone := s.NewPhone(s.T, identifier, password)
	// One public value of 256 begins with zeros, so the loop ends early.
	for range 20_000 {
		if strings.HasPrefix(phone.Public(), "00") {
			break
		}
		phone = s.NewPhone(s.T, identifier, password)
	}
	x := s.begin(s.T, credential, phone, func(digits string) string {
		short := strings.TrimLeft(digits, "0")
		if len(digits)-len(short) < 2 {
			s.Fatal("no public value began with zeros")
		}
		return short
	})
	if _, serverEvidence, ok := x.verify(s.T, strings.Clone); !ok || phone.Confirm(serverEvidence) != nil {
		s.Error("the exchange fails")
	}
}

func testWrongEvidence(s suite) {
	for what, x := range map[string]*exchange{
		"wrong password": s.known(s.T, "Tb048aX2"),
		"simulated":      s.begin(s.T, s.Profile.SimulatedCredential(secret, identifier), s.NewPhone(s.T, identifier, password), strings.Clone),
	} {
		if _, _, ok := x.verify(s.T, strings.Clone); ok {
			s.Errorf("%s: evidence is taken", what)
		}
	}

	x, other := s.known(s.T, password), s.known(s.T, password)
	right, err := s.Profile.ParseEvidence(x.clientEvidence)
	if err != nil {
		s.Fatal(err)
	}
	x.refused(s.T, "none", identifier, nil)
	x.refused(s.T, "cut short", identifier, right[:len(right)-1])
	x.refused(s.T, "zeros", identifier, make([]byte, len(right)))
	for i := range right {
		wrong := bytes.Clone(right)
		wrong[i] ^= 1 << (i % 8)
		x.refused(s.T, "altered", identifier, wrong)
	}
	if !s.EvidenceWithoutIdentifier {
		x.refused(s.T, "other identifier", "e3wfISG8", right)
	}
	other.refused(s.T, "other exchange", identifier, right)
	if _, _, ok := x.verify(s.T, strings.Clone); !ok {
		s.Error("right evidence is refused")
	}
}

// number returns n+d in hexadecimal digits.
func number(n *big.Int, d int64) string { return new(big.Int).Add(n, big.NewInt(d)).Text(16) }

func testPublicValues(s suite) {
	digits := len(s.Prime.Text(16))
	for _, refused := range []string{
		"", "0", "1", strings.Repeat("0", digits), strings.Repeat("0", digits-1) + "1",
		number(s.Prime, -1), number(s.Prime, 0), number(s.Prime, 1), "00" + number(s.Prime, 0), strings.Repeat("F", digits),
		"01" + strings.Repeat("0", digits), strings.Repeat("0", digits+1) + "12", strings.Repeat("7", 1<<16),
		"xyz", " 12", "-12", "+12", "0x12", "1_2", "１２",
	} {
		b, err := s.Profile.ParsePublic(refused)
		checkRefused(s.T, refused, b, err)
	}
	for _, taken := range []string{"2", number(s.Prime, -2)} {
		want, err := s.Profile.ParsePublic(taken)
		if err != nil {
			s.Errorf("%q: %v", taken, err)
		}
		for name, form := range forms {
			if b, err := s.Profile.ParsePublic(form(strings.Repeat("0", digits-len(taken)) + taken)); err != nil || !bytes.Equal(b, want) {
				s.Errorf("%s of %q: %x, %v, want %x", name, taken, b, err, want)
			}
		}
	}
}

func testEvidence(s suite) {
	full := s.known(s.T, password).clientEvidence
	for _, refused := range []string{"", "xyz", " " + full[1:], full[1:] + "g", "01" + full, "1" + strings.Repeat("0", len(full)), "000" + full, strings.Repeat("7", 1<<16)} {
		b, err := s.Profile.ParseEvidence(refused)
		checkRefused(s.T, refused, b, err)
	}
	want, err := s.Profile.ParseEvidence("1")
	if err != nil {
		s.Fatal(err)
	}
	for name, form := range forms {
		if b, err := s.Profile.ParseEvidence(form(strings.Repeat("0", len(full)-1) + "1")); err != nil || !bytes.Equal(b, want) {
			s.Errorf("%s of 1: %x, %v, want %x", name, b, err, want)
		}
	}
}

// checkRefused fails the test unless a value is refused with an error that does not contain
// it, and whose text completes a sentence that begins with the name of the value.
func checkRefused(t *testing.T, text string, value []byte, err error) {
	t.Helper()
	shown := text[:min(len(text), 600)]
	if err == nil || value != nil {
		t.Errorf("%q: must be refused, with an error and without a value, got %x, %v", shown, value, err)
		return
	}
	if problem := err.Error(); !strings.HasPrefix(problem, "is ") || len(problem) > 60 || len(text) > 1 && strings.Contains(problem, text) {
		t.Errorf("%q: the error must begin with \"is \", be short and not repeat the value, it is %q", shown, problem)
	}
}

func testNewAnswers(s suite) {
	for what, credential := range map[string][]byte{"known": s.Profile.Credential(secret, identifier, password), "unknown": s.Profile.SimulatedCredential(secret, identifier)} {
		phone := s.NewPhone(s.T, identifier, password)
		x, y := s.begin(s.T, credential, phone, strings.Clone), s.begin(s.T, credential, s.NewPhone(s.T, identifier, password), strings.Clone)
		if x.serverPublic == y.serverPublic || bytes.Equal(x.state, y.state) {
			s.Errorf("%s: two answers are the same: the server's private value must be random", what)
		}
		if x.salt != y.salt {
			s.Errorf("%s: the salt of an identifier changes, so that it tells when somebody registers", what)
		}
	}
}

func testSimulated(s suite) {
	p := s.Profile
	known, unknown := p.Credential(secret, identifier, password), p.SimulatedCredential(secret, identifier)
	if len(known) != len(unknown) {
		s.Fatalf("credentials are told apart by their size: %d bytes of a known identifier, %d of an unknown one", len(known), len(unknown))
	}
	if bytes.Equal(known, unknown) {
		s.Error("the credential of a password is the simulated one, which no password may have")
	}
	if !bytes.Equal(unknown, p.SimulatedCredential(secret, identifier)) {
		s.Error("a simulated credential changes")
	}
	for what, other := range map[string][]byte{
		"identifier": p.SimulatedCredential(secret, "e3wfISG8"),
		"secret":     p.SimulatedCredential(bytes.Repeat([]byte{0x5F}, 32), identifier),
	} {
		if len(other) != len(unknown) || bytes.Equal(other, unknown) {
			s.Errorf("a simulated credential does not depend on the %s", what)
		}
	}
	x := s.begin(s.T, known, s.NewPhone(s.T, identifier, password), strings.Clone)
	y := s.begin(s.T, unknown, s.NewPhone(s.T, identifier, password), strings.Clone)
	if x.salt != y.salt || len(x.serverPublic) != len(y.serverPublic) {
		s.Errorf("known and unknown identifiers are told apart by their answers: salts %s and %s, public values of %d and %d digits",
			x.salt, y.salt, len(x.serverPublic), len(y.serverPublic))
	}
	decoy := make([]byte, p.StateSize())
	if err := p.SimulatedState(decoy, unknown); err != nil {
		s.Fatal(err)
	}
	evidence, err := p.ParseEvidence(x.clientEvidence)
	if err != nil {
		s.Fatal(err)
	}
	(&exchange{Subject: s.Subject, state: decoy}).refused(s.T, "decoy", identifier, evidence)
}

func testSealing(s suite) {
	x := s.known(s.T, password)
	session, serverEvidence, ok := x.verify(s.T, strings.Clone)
	if !ok {
		s.Fatal("right evidence is refused")
	}
	if err := x.phone.Confirm(serverEvidence); err != nil {
		s.Fatal(err)
	}
	if _, err := session.Seal("serialNumber", []byte("1")); err == nil {
		s.Error("an unknown item is sealed")
	}
	if _, err := session.Seal(seal.ActivationCode, nil); err == nil {
		s.Error("nothing is sealed")
	}
	c, err := session.Seal(seal.ActivationCode, []byte("1234"))
	if err != nil {
		s.Fatal(err)
	}
	if _, err := session.Seal(seal.ActivationCode, []byte("1234")); err == nil {
		s.Error("an item is sealed twice")
	}
	if got, err := x.phone.Open(seal.EventReactivationCounter, c); err == nil {
		s.Errorf("opened as another item: %q", got)
	}
	for _, part := range [][]byte{c.Data, c.Counter, c.MAC} {
		part[0] ^= 1
		if got, err := x.phone.Open(seal.ActivationCode, c); err == nil {
			s.Errorf("altered and opened to %q", got)
		}
		part[0] ^= 1
	}
	session.Clear()
	if c, err := session.Seal(seal.EventReactivationCounter, []byte("42")); err == nil {
		if got, err := x.phone.Open(seal.EventReactivationCounter, c); err == nil {
			s.Errorf("sealed after the end: %q", got)
		}
	}
}

func testInvalidCredentials(s suite) {
	good := s.Profile.Credential(secret, identifier, password)
	a, err := s.Profile.ParsePublic("2")
	if err != nil {
		s.Fatal(err)
	}
	for what, credential := range map[string][]byte{"none": nil, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0)} {
		if b, salt, err := s.Profile.Begin(make([]byte, s.Profile.StateSize()), credential, a); err == nil || b != "" || salt != "" {
			s.Errorf("%s: got %q, %q, %v", what, b, salt, err)
		}
	}
}

func testTimes(s suite) {
	p := s.Profile
	a, err := p.ParsePublic(s.NewPhone(s.T, identifier, password).Public())
	if err != nil {
		s.Fatal(err)
	}
	wrong, err := p.ParseEvidence(s.known(s.T, "Tb048aX2").clientEvidence)
	if err != nil {
		s.Fatal(err)
	}
	var begin, verify []timing.Sample
	for name, credential := range map[string][]byte{
		"known": p.Credential(secret, identifier, password), "unknown": p.SimulatedCredential(secret, identifier), "another unknown": p.SimulatedCredential(secret, "e3wfISG8"),
	} {
		state := make([]byte, p.StateSize())
		call := func() {
			if _, _, err := p.Begin(state, credential, a); err != nil {
				s.Fatal(err)
			}
		}
		call()
		begun := bytes.Clone(state)
		begin = append(begin, timing.Sample{Name: name, Call: call})
		verify = append(verify, timing.Sample{Name: name, Prepare: func() { copy(state, begun) }, Call: func() {
			if _, _, ok := p.Verify(state, identifier, wrong); ok {
				s.Fatal("wrong evidence is taken")
			}
		}})
	}
	decoy := make([]byte, p.StateSize())
	if err := p.SimulatedState(decoy, p.SimulatedCredential(secret, identifier)); err != nil {
		s.Fatal(err)
	}
	verify = append(verify, timing.Sample{Name: "none", Call: func() { p.Verify(decoy, identifier, wrong) }})
	s.Run("first call", func(t *testing.T) { timing.Same(t, tolerance, begin) })
	s.Run("second call", func(t *testing.T) { timing.Same(t, tolerance, verify) })
}
