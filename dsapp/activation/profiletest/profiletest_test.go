package profiletest_test

import (
	"bytes"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/internal/srpphone"
)

// wrongVariable names the profile that TestWrongProfile has to test, in the process that
// TestComplaints starts.
const wrongVariable = "PROFILETEST_WRONG"

// wrong is a profile with a mistake: the functions that are set replace its methods.
type wrong struct {
	*srp.Profile
	name                string
	parsePublic         func(text string) ([]byte, error)
	simulatedCredential func(secret []byte, identifier string) []byte
	begin               func(state, credential, clientPublic []byte) (string, string, error)
	verify              func(state []byte, identifier string, evidence []byte) (seal.Session, string, bool)
}

func (w *wrong) Name() string {
	if w.name != "" {
		return w.name
	}
	return w.Profile.Name()
}

func (w *wrong) ParsePublic(text string) ([]byte, error) {
	if w.parsePublic != nil {
		return w.parsePublic(text)
	}
	return w.Profile.ParsePublic(text)
}

func (w *wrong) SimulatedCredential(secret []byte, identifier string) []byte {
	if w.simulatedCredential != nil {
		return w.simulatedCredential(secret, identifier)
	}
	return w.Profile.SimulatedCredential(secret, identifier)
}

func (w *wrong) Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error) {
	if w.begin != nil {
		return w.begin(state, credential, clientPublic)
	}
	return w.Profile.Begin(state, credential, clientPublic)
}

func (w *wrong) Verify(state []byte, identifier string, evidence []byte) (session seal.Session, serverEvidence string, ok bool) {
	if w.verify != nil {
		return w.verify(state, identifier, evidence)
	}
	return w.Profile.Verify(state, identifier, evidence)
}

// generous is a session that seals whatever it is asked to.
type generous struct {
	seal.Session
	seal func(item seal.Item, plaintext []byte) (seal.Ciphertext, error)
}

func (g generous) Seal(item seal.Item, plaintext []byte) (seal.Ciphertext, error) {
	return g.seal(item, plaintext)
}

// mistakes are those that authors of profiles are likely to make, each with the test that must
// fail and what it must say.
var mistakes = []struct {
	name, test, complaint string
	make                  func(p *srp.Profile, w *wrong)
}{
	{"long name", "the name fits into a stored record", "the name must have 1 to 32 bytes", func(_ *srp.Profile, w *wrong) {
		w.name = strings.Repeat("x", 33)
	}},
	{"all evidence is right", "wrong evidence is refused without a result", "wrong password: evidence is taken", func(p *srp.Profile, w *wrong) {
		w.verify = func([]byte, string, []byte) (seal.Session, string, bool) {
			return p.NewSession(make([]byte, 32), nil, nil, nil), strings.Repeat("0", 64), true
		}
	}},
	{"M2 before M1", "wrong evidence is refused without a result", "altered: the server's evidence must not be given before the client's is verified", func(p *srp.Profile, w *wrong) {
		w.verify = func(state []byte, identifier string, evidence []byte) (seal.Session, string, bool) {
			session, m2, ok := p.Verify(state, identifier, evidence)
			if !ok {
				m2 = strings.Repeat("0", 64)
			}
			return session, m2, ok
		}
	}},
	{"part of the evidence", "wrong evidence is refused without a result", "altered: evidence is taken", func(p *srp.Profile, w *wrong) {
		w.verify = func(state []byte, identifier string, evidence []byte) (seal.Session, string, bool) {
			for last := range 256 {
				if len(evidence) == 32 {
					evidence = append(bytes.Clone(evidence[:31]), byte(last))
				}
				if session, m2, ok := p.Verify(bytes.Clone(state), identifier, evidence); ok {
					return session, m2, ok
				}
			}
			return nil, "", false
		}
	}},
	{"A of 0", "invalid public values are refused", `"0": must be refused, with an error and without a value`, func(p *srp.Profile, w *wrong) {
		w.parsePublic = func(text string) ([]byte, error) {
			if text == "0" {
				return make([]byte, p.Size()), nil
			}
			return p.ParsePublic(text)
		}
	}},
	{"other sizes for unknown identifiers", "simulated credentials look like real ones", "are told apart by their size", func(p *srp.Profile, w *wrong) {
		w.simulatedCredential = func(secret []byte, identifier string) []byte {
			return append(p.SimulatedCredential(secret, identifier), 0)
		}
	}},
	{"another salt for unknown identifiers", "simulated credentials look like real ones", "are told apart by their answers: salts", func(p *srp.Profile, w *wrong) {
		w.simulatedCredential = func(secret []byte, identifier string) []byte {
			return p.SimulatedCredential(bytes.Repeat([]byte{1}, len(secret)), identifier)
		}
	}},
	{"the same B again", "every answer is new", "two answers are the same: the server's private value must be random", func(p *srp.Profile, w *wrong) {
		var first []byte
		var public, salt string
		w.begin = func(state, credential, clientPublic []byte) (string, string, error) {
			if first == nil {
				public, salt, _ = p.Begin(state, credential, clientPublic)
				first = bytes.Clone(state)
			}
			copy(state, first)
			return public, salt, nil
		}
	}},
	{"an item is sealed twice", "each item is sealed once, and none after Clear", "an item is sealed twice", func(p *srp.Profile, w *wrong) {
		w.verify = func(state []byte, identifier string, evidence []byte) (seal.Session, string, bool) {
			session, m2, ok := p.Verify(state, identifier, evidence)
			if !ok {
				return session, m2, ok
			}
			return generous{session, func(item seal.Item, plaintext []byte) (seal.Ciphertext, error) {
				if c, err := session.Seal(item, plaintext); err == nil || item == "serialNumber" || len(plaintext) == 0 {
					return c, err
				}
				return seal.Ciphertext{}, nil
			}}, m2, ok
		}
	}},
	{"unknown identifiers cost more", "the time does not reveal whether an identifier is known", "unknown takes", func(p *srp.Profile, w *wrong) {
		known := p.Credential(bytes.Repeat([]byte{0x5E}, 32), "e3wfISG9", "Tb048aX1")
		w.begin = func(state, credential, clientPublic []byte) (string, string, error) {
			if !bytes.Equal(credential, known) {
				for range 10 {
					if _, _, err := p.Begin(state, credential, clientPublic); err != nil {
						return "", "", err
					}
				}
			}
			return p.Begin(state, credential, clientPublic)
		}
	}},
}

// TestWrongProfile tests the profile with the mistake that the environment names.
func TestWrongProfile(t *testing.T) {
	name := os.Getenv(wrongVariable)
	if name == "" {
		t.Skip("run by TestComplaints")
	}
	p, err := srp.LookupProfile(srp.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	group, _ := variant.FindGroup("rfc5054-2048")
	prime, _ := new(big.Int).SetString(group.Prime, 16)
	w := &wrong{Profile: p}
	for _, m := range mistakes {
		if m.name == name {
			m.make(p, w)
		}
	}
	profiletest.Run(t, profiletest.Subject{Profile: w, Prime: prime, NewPhone: func(tb testing.TB, identifier, password string) profiletest.Phone {
		tb.Helper()
		return srpphone.New(tb, p, identifier, password)
	}})
}

// Whoever writes a profile is told what it gets wrong: for each mistake, the test of the rule that it
// breaks fails and says what is wrong.
func TestComplaints(t *testing.T) {
	t.Parallel()
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestWrongProfile$/^" + strings.ReplaceAll(m.test, " ", "_") + "$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", run, "-test.paniconexit0")
			cmd.Env = append(os.Environ(), wrongVariable+"="+m.name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), m.complaint) {
				t.Errorf("%v, want %q in\n%s", err, m.complaint, out)
			}
		})
	}
}
