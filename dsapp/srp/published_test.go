package srp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

//go:generate go test . -run ^TestPublishedVectors$ -count=1 -update

var update = flag.Bool("update", false, "write the published vectors anew")

const vectorFolder = "../../docs/vectors"

// TestPublishedVectors: the files of docs/vectors, from which other people write phones, have
// exactly the values that this package computes, for every profile of the package and every
// preset of a library, and no other profile.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	var want []string
	for _, p := range append(presetProfiles(t), profiles...) {
		want = append(want, p.name+".json")
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			testPublishedVectors(t, p)
		})
	}
	slices.Sort(want)
	files, err := filepath.Glob(filepath.Join(vectorFolder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	if !*update && !slices.Equal(files, want) {
		t.Errorf("files %q, want %q", files, want)
	}
}

// presetProfiles returns the profiles of all libraries that have a preset.
func presetProfiles(t *testing.T) (list []*Profile) {
	t.Helper()
	for name := range variant.Presets {
		if name == variant.DefaultPreset {
			continue // the formulas of the profiles of the package
		}
		p, err := New(name, variant.Variant{Preset: name})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func testPublishedVectors(t *testing.T, p *Profile) {
	path := filepath.Join(vectorFolder, p.name+".json")
	known := map[string]draws{}
	published, err := os.ReadFile(path)
	if !*update {
		var file vectorFile
		if err != nil || json.Unmarshal(published, &file) != nil {
			t.Fatalf("cannot be read: %v", err)
		}
		for _, v := range file.Vectors {
			known[v.Name] = v.Draws
		}
	}
	file := vectorFile{
		Profile: p.name, Variant: p.variant,
		Group: vectorGroup{
			N: upperHex(p.prime), G: upperHex([]byte{p.generator}), Bytes: p.Size(), K: upperHex(p.multiplier()),
			HashN: upperHex(p.digest(p.prime)), HashG: upperHex(p.digest([]byte{p.generator})), HashNXorHashG: upperHex(p.groupHash([]byte{p.generator})),
		},
	}
	for _, c := range vectorCases() {
		if !c.concerns(p) {
			continue
		}
		hints, ok := known[c.name]
		if !ok && !*update {
			t.Errorf("%s is missing", c.name)
			continue
		}
		v := c.make(t, p, hints)
		if got := v.outcome(t, p); got != v.Expect {
			t.Errorf("%s: outcome %s, want %s", c.name, got, v.Expect)
		}
		file.Vectors = append(file.Vectors, v)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(file); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(b.Bytes(), published) {
		t.Errorf("%s differs from what the package computes: run go generate ./dsapp/srp", path)
	}
}

// The form of the files. docs/vectors/README.md describes it.
type (
	vectorFile struct {
		Profile string          `json:"profile"`
		Variant variant.Variant `json:"variant"`
		Group   vectorGroup     `json:"group"`
		Vectors []vector        `json:"vectors"`
	}
	vectorGroup struct {
		N             string `json:"N"`
		G             string `json:"g"`
		Bytes         int    `json:"bytes"`
		K             string `json:"k"`
		HashN         string `json:"hashN"`
		HashG         string `json:"hashG"`
		HashNXorHashG string `json:"hashNXorHashG"`
	}
	vector struct {
		Name        string        `json:"name"`
		Purpose     string        `json:"purpose"`
		Expect      outcome       `json:"expect"`
		LicenseType string        `json:"licenseType"`
		Draws       draws         `json:"draws,omitempty"`
		Inputs      vectorInputs  `json:"inputs"`
		Values      *vectorValues `json:"values,omitempty"`
		Typed       *vectorTyped  `json:"typed,omitempty"`
		Sealing     *vectorSeal   `json:"sealing,omitempty"`
		Calls       []vectorCall  `json:"calls"`
	}
	vectorInputs struct {
		Identifier string `json:"identifier"`
		Password   string `json:"password"`
		Salt       string `json:"salt"`
		Private    string `json:"a"`
		ServerPriv string `json:"b"`
	}
	vectorValues struct {
		IdentityHash string `json:"identityHash"`
		InnerHash    string `json:"innerHash"`
		X            string `json:"x"`
		V            string `json:"v"`
		A            string `json:"A"`
		B            string `json:"B"`
		U            string `json:"u"`
		S            string `json:"S"`
		K            string `json:"K"`
		M1           string `json:"M1"`
		M2           string `json:"M2"`
	}
	// vectorTyped is what the phone computes with a wrong password.
	vectorTyped struct {
		Password string `json:"password"`
		X        string `json:"x"`
		S        string `json:"S"`
		K        string `json:"K"`
		M1       string `json:"M1"`
	}
	vectorSeal struct {
		Salt  string       `json:"salt"`
		Items []vectorItem `json:"items"`
	}
	vectorItem struct {
		Item           seal.Item `json:"item"`
		EncryptionInfo string    `json:"encryptionInfo"`
		EncryptionKey  string    `json:"encryptionKey"`
		MACInfo        string    `json:"macInfo"`
		MACKey         string    `json:"macKey"`
		Counter        string    `json:"counter"`
		InitialBlock   string    `json:"initialBlock"`
		Plaintext      string    `json:"plaintext"`
		Ciphertext     string    `json:"ciphertext"`
		MAC            string    `json:"mac"`
	}
	vectorCall struct {
		Service string            `json:"service"`
		Request map[string]string `json:"request"`
		Answer  map[string]any    `json:"answer"`
	}
	// draws has the numbers of the random values that a search has found, by the name of the
	// value.
	draws map[string]int
	// outcome is what happens to an exchange.
	outcome string
)

const (
	expectSuccess               outcome = "success"
	expectServerPublicRefused   outcome = "serverPublicRefused"
	expectClientEvidenceRefused outcome = "clientEvidenceRefused"
	expectServerEvidenceRefused outcome = "serverEvidenceRefused"
	expectDataRefused           outcome = "dataRefused"
)

// The names of the values that are drawn.
const (
	drawA, drawB, drawSalt, drawPassword, drawCounter = "a", "b", "salt", "password", "counter"
)

// A vectorCase describes one vector. Only name and purpose are required.
type vectorCase struct {
	name, purpose        string
	expect               outcome // success if empty
	identifier, password string
	typed                string // wrong password
	licenseType          string // mdl if empty
	message              int    // size of the activation message in bytes
	withoutCounter       bool   // of a standard licence
	// formulas says that the vector is about formulas, so that presets have it, too. of is a
	// member of a template, without which the vector would be about nothing.
	formulas bool
	of       variant.Member
	// draw names the value that is drawn until zero reports that the vector is as desired.
	draw string
	zero func(v vector) bool
	salt func([]byte) // changes the salt
	// counter changes the counter of the encryption.
	counter func([]byte)
	// wire changes what is sent.
	wire func(p *Profile, calls []vectorCall)
}

// concerns reports whether a profile has the vector.
func (c vectorCase) concerns(p *Profile) bool {
	v := p.variant
	if c.of != "" && !slices.Contains(slices.Concat(v.Exponent, v.ClientEvidence, v.ServerEvidence), string(c.of)) {
		return false
	}
	// The hash of the identifier of the vector begins with zero for one hash only.
	return len(p.identity) == 0 || c.formulas && (c.identifier == "" || v.Hash == "sha256")
}

func startsWithZero(value string) bool { return strings.HasPrefix(value, "00") }

func vectorCases() []vectorCase {
	value := func(f func(v *vectorValues) string) func(vector) bool {
		return func(v vector) bool { return startsWithZero(f(v.Values)) }
	}
	flipLast := func(s string) string {
		return s[:len(s)-1] + string("123456789ABCDEF0"[strings.IndexByte("0123456789ABCDEF", s[len(s)-1])])
	}
	proof := func(member string, change func(string) string) func(*Profile, []vectorCall) {
		return func(_ *Profile, calls []vectorCall) {
			calls[1].Answer[member] = change(calls[1].Answer[member].(string))
		}
	}
	asNumber := func(call int, member string) func(*Profile, []vectorCall) {
		return func(_ *Profile, calls []vectorCall) {
			calls[call].Request[member] = strings.ToLower(strings.TrimLeft(calls[call].Request[member], "0"))
		}
	}
	serverPublic := func(b func(p *Profile) []byte) func(*Profile, []vectorCall) {
		return func(p *Profile, calls []vectorCall) { calls[0].Answer["serverEphemeralPublicKey"] = upperHex(b(p)) }
	}
	first16 := func(s string) string { return s[:32] }
	return []vectorCase{
		{name: "multi-device licence", purpose: "a whole exchange of the usual form: compare each value in the order of the file", formulas: true},
		{name: "standard licence", purpose: "two items, each with its own keys, counter and MAC", formulas: true, licenseType: "standard"},
		{
			name: "standard licence without counter", purpose: "the member eventReactivationCounter may be absent",
			licenseType: "standard", withoutCounter: true,
		},

		{
			name: "A begins with zero", purpose: "each hash has A in the form that its formula names; on the wire zeros may be missing and digits may be in lower case", formulas: true,
			draw: drawA, zero: value(func(v *vectorValues) string { return v.A }), wire: asNumber(0, "clientEphemeralPublicKey"),
		},
		{
			name: "B begins with zero", purpose: "each hash has B in the form that its formula names", formulas: true,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.B }),
		},
		{
			name: "S begins with zero", purpose: "each hash has S in the form that its formula names", formulas: true,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.S }),
		},
		{
			name: "salt begins with zero", purpose: "x and M1 have the salt in the form that their formulas name; the gateway avoids this salt, since some libraries shorten it", formulas: true,
			salt: func(b []byte) { b[0] = 0 },
		},
		{
			name: "x begins with zero", purpose: "x is a number of all bits of the hash, whatever its first byte", formulas: true,
			draw: drawSalt, zero: value(func(v *vectorValues) string { return v.X }),
		},
		{
			name: "u begins with zero", purpose: "u is a number of all bits of the hash, whatever its first byte", formulas: true,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.U }),
		},
		{
			name: "K begins with zero", purpose: "K is bytes and no number, in M1, in M2 and as input of HKDF", formulas: true, of: variant.K,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.K }),
		},
		{
			name: "M1 begins with zero", purpose: "M2 has M1 in the form that its formula names; on the wire zeros may be missing and digits may be in lower case", formulas: true,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.M1 }), wire: asNumber(1, "clientEvidenceMessage"),
		},
		{
			name: "M2 begins with zero", purpose: "M2 is compared as bytes", formulas: true,
			draw: drawB, zero: value(func(v *vectorValues) string { return v.M2 }),
		},
		{
			name: "hash of the identifier begins with zero", purpose: "H(I) enters M1 with all its bytes", formulas: true, of: variant.IdentityHash,
			identifier: "user159",
		},
		{
			name: "inner hash begins with zero", purpose: "the inner hash enters x with all its bytes", formulas: true,
			draw: drawPassword, zero: value(func(v *vectorValues) string { return v.InnerHash }),
		},
		{
			name: "counter and ciphertext begin with zero", purpose: "counter and ciphertext are bytes and no numbers",
			counter: func(b []byte) { b[0] = 0 }, draw: drawCounter,
			zero: func(v vector) bool { return startsWithZero(v.Sealing.Items[0].Ciphertext) },
		},
		{
			name: "MAC begins with zero", purpose: "the MAC is compared as 32 bytes",
			draw: drawCounter, zero: func(v vector) bool { return startsWithZero(v.Sealing.Items[0].MAC) },
		},
		{
			name: "counter of ones", purpose: "the counter is the first half of the initial block; blocks are counted in the second half, from 0",
			counter: func(b []byte) { copy(b, bytes.Repeat([]byte{0xFF}, len(b))) },
		},
		{
			name: "longest activation message", purpose: "4234 digits, so that the number of the block needs a second byte",
			message: 2117,
		},
		{
			name: "longest identifier and password", purpose: "64 characters each, which is more than a block of the hash",
			identifier: "ABCDEFGHIJKLMNOPQRSTUVWXYZ.abcdefghijklmnopqrstuvwxyz_0123456789",
			password:   "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		},
		{
			name: "shortest identifier and password", purpose: "4 characters each; nothing but the colon separates them in the inner hash",
			identifier: "a.-_", password: "::::",
		},
		{
			name: "punctuation in the password", purpose: "a password can have a colon and what JSON escapes",
			password: `a:"\/<&>~`,
		},

		{
			name: "wrong password", purpose: "the server refuses the evidence and sends nothing else", formulas: true,
			expect: expectClientEvidenceRefused, typed: "Tb048aX2",
		},
		{
			name: "altered M1", purpose: "the server refuses the evidence",
			expect: expectClientEvidenceRefused,
			wire: func(_ *Profile, calls []vectorCall) {
				calls[1].Request["clientEvidenceMessage"] = flipLast(calls[1].Request["clientEvidenceMessage"])
			},
		},
		{
			name: "B is 0", purpose: "whoever sends it knows S without the password: the phone stops",
			expect: expectServerPublicRefused, wire: serverPublic(func(p *Profile) []byte { return make([]byte, p.Size()) }),
		},
		{
			name: "B is N", purpose: "it is 0 modulo N: the phone stops",
			expect: expectServerPublicRefused, wire: serverPublic(func(p *Profile) []byte { return p.prime }),
		},
		{
			name: "altered M2", purpose: "the server has not proved that it knows the verifier: the phone stops and opens nothing", formulas: true,
			expect: expectServerEvidenceRefused, wire: proof("serverEvidenceMessage", flipLast),
		},
		{
			name: "shortened M2", purpose: "the phone compares all 32 bytes",
			expect: expectServerEvidenceRefused, wire: proof("serverEvidenceMessage", first16),
		},
		{
			name: "altered MAC", purpose: "the phone checks the MAC before it decrypts",
			expect: expectDataRefused, wire: proof("mac", flipLast),
		},
		{
			name: "shortened MAC", purpose: "the phone compares all 32 bytes",
			expect: expectDataRefused, wire: proof("mac", first16),
		},
		{
			name: "altered ciphertext", purpose: "the MAC covers the ciphertext",
			expect: expectDataRefused, wire: proof("encryptedLicenseActivationMessage", flipLast),
		},
		{
			name: "altered counter", purpose: "the MAC covers the counter",
			expect: expectDataRefused, wire: proof("encryptedCounter", flipLast),
		},
		{
			name: "exchanged items", purpose: "each item has its own keys, so that one cannot stand for the other",
			expect: expectDataRefused, licenseType: "standard",
			wire: func(_ *Profile, calls []vectorCall) {
				s := calls[1].Answer["standard"].(map[string]any)
				s["activationCode"], s["eventReactivationCounter"] = s["eventReactivationCounter"], s["activationCode"]
			},
		},
	}
}

// drawn returns the nth random value of a name. All vectors of a profile have the first, except
// those that need another.
func drawn(p *Profile, name string, n int) []byte {
	b := sha256.Sum256(fmt.Appendf(nil, "DSAPP vector, %s, %s, %d", p.name, name, n))
	return b[:]
}

// make returns the vector with the drawn values that hints name, or searches for them.
func (c vectorCase) make(t *testing.T, p *Profile, hints draws) vector {
	t.Helper()
	if c.draw == "" {
		return c.build(t, p, draws{})
	}
	n, known := hints[c.draw]
	for ; ; n++ {
		v := c.build(t, p, draws{c.draw: n})
		if c.zero(v) {
			return v
		}
		if known {
			t.Fatalf("%s: draw %d does not begin with zero", c.name, n)
		}
	}
}

func (c vectorCase) build(t *testing.T, p *Profile, d draws) vector {
	t.Helper()
	v := vector{Name: c.name, Purpose: c.purpose, Expect: c.expect, LicenseType: c.licenseType, Draws: d}
	if v.Expect == "" {
		v.Expect = expectSuccess
	}
	if v.LicenseType == "" {
		v.LicenseType = "mdl"
	}
	salt := drawn(p, drawSalt, d[drawSalt])[:SaltSize]
	salt[0] |= 1
	if c.salt != nil {
		c.salt(salt)
	}
	identifier, password := c.identifier, c.password
	if identifier == "" {
		identifier = "e3wfISG9"
	}
	if password == "" {
		password = "Tb048aX1"
	}
	if c.draw == drawPassword {
		password = upperHex(drawn(p, drawPassword, d[drawPassword])[:4])
	}
	a, b := drawn(p, drawA, d[drawA]), drawn(p, drawB, d[drawB])
	v.Inputs = vectorInputs{Identifier: identifier, Password: password, Salt: upperHex(salt), Private: upperHex(a), ServerPriv: upperHex(b)}

	w := p.acquireWorkspace()
	defer w.release()
	// The hash that was computed last is x.
	x := func(password string) string {
		w.passwordExponent(identifier, password, salt)
		return upperHex(w.digested)
	}
	client, err := p.newClient(identifier, password, bytes.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	verifier := p.Verifier(identifier, password, salt)
	server, err := p.newEphemeral(verifier, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	values := vectorValues{
		IdentityHash: upperHex(p.digest([]byte(identifier))),
		X:            x(password), V: upperHex(verifier), A: upperHex(client.public), B: upperHex(server.public),
	}
	values.InnerHash = upperHex(w.inner)
	w.setU(client.public, server.public)
	values.U = upperHex(w.digested)
	e := exchange{
		identity: identifier, salt: salt, private: b, clientPublic: client.public, serverPublic: server.public, verifier: verifier,
	}
	w.serverPremasterSecret(e)
	w.setKeyAndEvidence(identifier, salt, client.public, server.public, w.x)
	values.S, values.K, values.M1, values.M2 = upperHex(w.number), upperHex(w.key), upperHex(w.m1), upperHex(w.m2)
	v.Values = &values
	key := bytes.Clone(w.key)

	sent := values.M1
	if c.typed != "" {
		w.passwordExponent(identifier, c.typed, salt)
		w.setU(client.public, server.public)
		w.clientPremasterSecret(server.public, (*[PrivateSize]byte)(a))
		w.setKeyAndEvidence(identifier, salt, client.public, server.public, w.x)
		v.Typed = &vectorTyped{Password: c.typed, S: upperHex(w.number), K: upperHex(w.key), M1: upperHex(w.m1)}
		v.Typed.X = x(c.typed)
		sent = v.Typed.M1
	}

	codes := map[string]any{"returnCodeEnum": "RET_SUCCESS", "statusCodeEnum": "STAT_SUCCESS", "returnCode": 0, "statusCode": 0}
	v.Calls = []vectorCall{{
		Service: "DSAPPSRPGenerateEphemeralKey",
		Request: map[string]string{"registrationIdentifier": identifier, "clientEphemeralPublicKey": values.A},
		Answer:  map[string]any{"serverEphemeralPublicKey": values.B, "salt": v.Inputs.Salt},
	}, {
		Service: "DSAPPSRPGenerateActivationData",
		Request: map[string]string{"registrationIdentifier": identifier, "clientEvidenceMessage": sent},
		Answer:  map[string]any{"serverEvidenceMessage": values.M2},
	}}
	c.seal(t, p, &v, p.NewSession(key, salt, client.public, server.public), d)
	if c.wire != nil {
		c.wire(p, v.Calls)
	}
	for i := range v.Calls {
		v.Calls[i].Answer = map[string]any{"resultCodes": codes, "result": v.Calls[i].Answer}
	}
	switch v.Expect {
	case expectServerPublicRefused:
		// The values of an honest server are not part of this exchange.
		v.Values, v.Sealing, v.Calls = nil, nil, v.Calls[:1]
	case expectClientEvidenceRefused:
		v.Sealing = nil
		v.Calls[1].Answer = map[string]any{"resultCodes": map[string]any{
			"returnCodeEnum": "RET_FAILURE", "statusCodeEnum": "STAT_INVCREDENTIALS", "returnCode": -1, "statusCode": 1000,
		}}
	case expectSuccess, expectServerEvidenceRefused, expectDataRefused:
	}
	return v
}

// seal adds the activation data to a vector and to its second answer.
func (c vectorCase) seal(t *testing.T, p *Profile, v *vector, s *Session, d draws) {
	t.Helper()
	v.Sealing = &vectorSeal{Salt: upperHex(s.salt)}
	add := func(item seal.Item, plaintext string) vectorItem {
		counter := drawn(p, drawCounter+" of "+string(item), d[drawCounter])[:p.counterSize()]
		counter[0] |= 1
		if c.counter != nil {
			c.counter(counter)
		}
		encryption, authentication, err := s.keys(item)
		if err != nil {
			t.Fatal(err)
		}
		sealed := seal.Ciphertext{Data: make([]byte, len(plaintext)), Counter: counter}
		if err := p.xorKeyStream(sealed.Data, []byte(plaintext), encryption, counter); err != nil {
			t.Fatal(err)
		}
		i := vectorItem{
			Item:           item,
			EncryptionInfo: "DSAPP-SRP v1 " + string(item) + " encryption", EncryptionKey: upperHex(encryption),
			MACInfo: "DSAPP-SRP v1 " + string(item) + " mac", MACKey: upperHex(authentication),
			Counter: upperHex(counter), InitialBlock: upperHex(counter) + strings.Repeat("00", 16-p.counterSize()),
			Plaintext: plaintext, Ciphertext: upperHex(sealed.Data), MAC: upperHex(p.authenticate(authentication, sealed)),
		}
		v.Sealing.Items = append(v.Sealing.Items, i)
		return i
	}
	answer := v.Calls[1].Answer
	members := func(i vectorItem, data string) map[string]any {
		return map[string]any{data: i.Ciphertext, "encryptedCounter": i.Counter, "mac": i.MAC}
	}
	if v.LicenseType == "mdl" {
		size := c.message
		if size == 0 {
			size = 45
		}
		maps.Copy(answer, members(add(seal.LicenseActivationMessage, upperHex(stream(c.name, size))), "encryptedLicenseActivationMessage"))
		return
	}
	standard := map[string]any{
		"activationCode": members(add(seal.ActivationCode, upperHex(stream(c.name, 41))), "data"),
	}
	if !c.withoutCounter {
		standard["eventReactivationCounter"] = members(add(seal.EventReactivationCounter, fmt.Sprintf("%091d", 42)), "data")
	}
	answer["standard"] = standard
}

// stream returns bytes that differ from each other.
func stream(name string, size int) []byte {
	var b []byte
	for n := uint32(0); len(b) < size; n++ {
		block := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("DSAPP vector, content of "+name), n))
		b = append(b, block[:]...)
	}
	return b[:size]
}

// outcome plays the calls of a vector with the server and the client of this package.
func (v vector) outcome(t *testing.T, p *Profile) outcome {
	t.Helper()
	password := v.Inputs.Password
	if v.Typed != nil {
		password = v.Typed.Password
	}
	c, err := p.newClient(v.Inputs.Identifier, password, bytes.NewReader(digits.Decode(t, v.Inputs.Private)))
	if err != nil {
		t.Fatal(err)
	}
	clientPublic, err := p.ParsePublic(v.Calls[0].Request["clientEphemeralPublicKey"])
	if err != nil || !bytes.Equal(clientPublic, c.Public()) {
		t.Errorf("%s: A is not that of the request (%v)", v.Name, err)
	}
	first := v.Calls[0].Answer["result"].(map[string]any)
	salt, serverPublic := digits.Decode(t, first["salt"].(string)), digits.Decode(t, first["serverEphemeralPublicKey"].(string))
	m1, err := c.Prove(salt, serverPublic)
	if err != nil {
		return expectServerPublicRefused
	}

	evidence, err := p.ParseEvidence(v.Calls[1].Request["clientEvidenceMessage"])
	if err != nil {
		t.Fatal(err)
	}
	_, _, ok := p.verify(exchange{
		identity: v.Inputs.Identifier, salt: salt, private: digits.Decode(t, v.Inputs.ServerPriv),
		clientPublic: clientPublic, serverPublic: serverPublic, verifier: p.Verifier(v.Inputs.Identifier, v.Inputs.Password, salt),
	}, evidence)
	if !ok {
		return expectClientEvidenceRefused
	}
	wantBytes(t, v.Name+": M1", m1, evidence)

	second := v.Calls[1].Answer["result"].(map[string]any)
	key, err := c.Confirm(digits.Decode(t, second["serverEvidenceMessage"].(string)))
	if err != nil {
		return expectServerEvidenceRefused
	}
	session := p.NewSession(key, salt, c.Public(), serverPublic)
	for _, i := range v.Sealing.Items {
		members, data := second, "encryptedLicenseActivationMessage"
		if v.LicenseType == "standard" {
			members, data = second["standard"].(map[string]any)[string(i.Item)].(map[string]any), "data"
		}
		part := func(name string) []byte {
			b, err := hex.DecodeString(members[name].(string))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		plaintext, err := session.Open(i.Item, seal.Ciphertext{Data: part(data), Counter: part("encryptedCounter"), MAC: part("mac")})
		if err != nil {
			return expectDataRefused
		}
		wantBytes(t, v.Name+": plaintext", plaintext, []byte(i.Plaintext))
	}
	return expectSuccess
}
