package activation_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// storedExchange is what a store had of a registration and of an exchange between its two
// calls, with the values of the phone.
type storedExchange struct {
	Profile, Identifier, Password                    string
	Kind                                             activation.Kind
	Generation, Secret, Facts, Verifier, Data, State []byte
	ClientPublic, ServerPublic, Salt                 string
	Evidence, ServerEvidence, Key                    string
	UnknownSalt                                      string
}

// Values stored by earlier versions can be used: registrations and begun exchanges of
// each profile, whichever profile is first, and the simulation secret.
func TestStoredByEarlierVersions(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/stored.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []storedExchange
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 6 {
		t.Fatalf("%d exchanges", len(all))
	}
	for _, x := range all {
		for _, configured := range []string{"rfc5054-2048-sha256", "rfc5054-4096-sha256"} {
			t.Run(x.Profile+" "+string(x.Kind)+" with "+configured, func(t *testing.T) {
				t.Parallel()
				x.continued(t, configured)
			})
		}
	}
}

func (x storedExchange) continued(t *testing.T, configured string) {
	t.Helper()
	w := newWorld(t, func(c *activation.Config) { c.Profiles = using(t, configured) })
	end, generation := w.clock.Now().Add(time.Minute), activation.Generation(x.Generation)
	w.store.Do(func(m *storetest.Model) {
		m.Secret = x.Secret
		m.Records[x.Identifier] = &storetest.Entry{
			Record:  activation.Record{Identifier: x.Identifier, Generation: generation, Kind: x.Kind, Facts: x.Facts, Verifier: x.Verifier, Data: x.Data},
			Expires: end, InFlight: map[activation.Token]bool{},
		}
		m.Handshakes[x.Identifier] = []*storetest.Handshake{{Handshake: activation.Handshake{Generation: generation, State: x.State}, Expires: end}}
	})

	want := activation.ActivationData{ActivationMessage: "0A1B2C3D4E5F60718293A4B5C6D7E8F9"}
	if x.Kind == activation.KindStandard {
		want = activation.ActivationData{ActivationCode: "1234-5678", EventReactivationCounter: "000042"}
	}
	from := home
	from.Profile = x.Profile
	proof, err := w.Prove(t.Context(), form.Identifier(x.Identifier), form.ClientEvidence(x.Evidence), from)
	if err != nil || proof.Evidence != x.ServerEvidence {
		t.Fatalf("evidence %s, %v, want %s", proof.Evidence, err, x.ServerEvidence)
	}
	transport := srp.NewSession(digits.Decode(t, x.Key), digits.Decode(t, x.ClientPublic), digits.Decode(t, x.ServerPublic))
	if got := opened(t, transport, proof); got != want {
		t.Errorf("got %+v", got)
	}
	a, err := w.AdmitConfirmation(t.Context(), form.Identifier(x.Identifier), x.Kind)
	if err != nil || a.UserID != "jane.doe" || a.Instance != "primary" {
		t.Errorf("admission %+v, %v", a, err)
	}

	p := w.beginAs(home, profile(t, x.Profile), form.Identifier(x.Identifier), x.Password)
	if p.challenge.Salt != x.Salt {
		t.Errorf("salt %s, want %s", p.challenge.Salt, x.Salt)
	}
	if proof, err = p.prove(); err != nil {
		t.Fatal(err)
	}
	if got := p.open(proof); got != want {
		t.Errorf("got %+v from another exchange", got)
	}
	if c := w.beginAs(home, profile(t, x.Profile), "unknown-id", "any password").challenge; c.Salt != x.UnknownSalt {
		t.Errorf("salt of an unknown identifier %s, want %s", c.Salt, x.UnknownSalt)
	}
}
