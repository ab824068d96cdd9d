package solve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// solve solves captures.
func solve(t *testing.T, captures ...Capture) *Report {
	t.Helper()
	r, err := Solve(t.Context(), captures, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// solveFrom solves a capture of a variant. Unless the search is to be whole, it begins with the x
// of the variant, which saves time and changes only the order.
func solveFrom(t *testing.T, v variant.Variant, c Capture, whole bool) *Report {
	t.Helper()
	s := search{ctx: t.Context(), capture: &c, progress: func(int, int) {}}
	if !whole {
		s.first = []variant.Variant{{Inner: v.Inner, Exponent: v.Exponent}}
	}
	return s.run().report([]Capture{c})
}

// wantExact fails unless the report has the variant, or names for each option in which it has
// another one that of the variant as what the captures cannot tell apart.
func wantExact(t *testing.T, r *Report, v variant.Variant) {
	t.Helper()
	wantExactBut(t, r, v, nil)
}

// wantExactBut is wantExact for a report with open options.
func wantExactBut(t *testing.T, r *Report, v variant.Variant, open []string) {
	t.Helper()
	if !slices.Equal(r.Open, open) || r.Profile == nil {
		t.Errorf("open are %q, want %q, stages %+v", r.Open, open, r.Stages)
		return
	}
	got := completed(t, *r.Profile)
	for _, d := range variant.Dimensions {
		want := d.Get(v)
		if d.Name == "hex_case" || slices.Contains(open, d.Name) || slices.Equal(d.Get(got), want) {
			continue
		}
		named := slices.ContainsFunc(r.Differences, func(x Difference) bool {
			return x.Option == d.Name && names(x, want)
		})
		if !named && !sameForever(d.Name, want, d.Get(got)) {
			t.Errorf("%s: found %q, want %q, named are %+v", d.Name, d.Get(got), want, r.Differences)
		}
	}
}

// names reports whether a difference names a choice, or each of its words that is not chosen.
func names(x Difference, want []string) bool {
	if slices.ContainsFunc(x.Others, func(o Other) bool { return sameForever(x.Option, o.Choice, want) }) {
		return true
	}
	if len(want) != len(x.Chosen) {
		return false
	}
	for i, word := range want {
		if !sameForever(x.Option, []string{word}, x.Chosen[i:i+1]) &&
			!slices.ContainsFunc(x.Others, func(o Other) bool { return len(o.Choice) == len(want) && o.Choice[i] == word }) {
			return false
		}
	}
	return true
}

// sameForever reports whether two choices never give different values: X with and without zeros
// of a group where it begins with none, and the forms of S that the interleaved hash skips.
func sameForever(option string, a, b []string) bool {
	strip := func(words []string) string {
		s := strings.Join(words, " ")
		for _, always := range []string{"X.minimal", "Xp.minimal"} {
			s = strings.ReplaceAll(s, always, strings.TrimSuffix(always, ".minimal"))
		}
		if option == "key_input" {
			s = strings.NewReplacer("S.minimal", "S", "S.signed", "S").Replace(s)
		}
		return s
	}
	return strip(a) == strip(b)
}

// randomPoint returns an accepted variant with random choices.
func randomPoint(random *rand.Rand) variant.Variant {
	for {
		var v variant.Variant
		for _, d := range variant.Dimensions {
			d.Set(&v, d.Choices[random.IntN(len(d.Choices))])
		}
		if v.Group != "rfc5054-3072" {
			v.Group = "rfc5054-2048" // the others take much longer and differ in nothing else
		}
		if c, err := v.Complete(); err == nil && c.Check() == nil {
			return c
		}
	}
}

// recorded returns what the client that was written from the documentation records of exchanges with
// variants.
func recorded(t *testing.T, variants []variant.Variant) (captures []Capture) {
	t.Helper()
	var lines bytes.Buffer
	for _, v := range variants {
		if err := json.NewEncoder(&lines).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	client := exec.CommandContext(t.Context(), "node", filepath.Join("..", "..", "..", "cmd", "caddy", "testdata", "variant-client", "record.mjs"))
	client.Stdin, client.Stderr = &lines, t.Output()
	out, err := client.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out) {
		c, err := ParseCapture(line)
		if err != nil {
			t.Fatal(err)
		}
		captures = append(captures, c)
	}
	return captures
}

// Random points of the space, recorded by a client in another language, are found exactly, or what the
// capture cannot tell apart is named. The gateway's own code agrees with the result.
func TestRandomPointsAreFound(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(2026, 22))
	variants := make([]variant.Variant, 50)
	for n := range variants {
		variants[n] = randomPoint(random)
	}
	captures := recorded(t, variants)
	for n, v := range variants {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c := captures[n]
			if n%2 == 0 {
				c.Key = nil
			}
			r := solveFrom(t, v, c, n%10 == 0)
			wantExact(t, r, v)
			if r.Profile == nil {
				return
			}
			if err := errors.Join(Try(c, *r.Profile), r.Profile.Unused()); err != nil {
				t.Errorf("%+v: %v", *r.Profile, err)
			}
			list, err := Compare(c, completed(t, *r.Profile))
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				if x.Recorded && !x.Equal {
					t.Errorf("%s differs", x.Name)
				}
			}
		})
	}
}

// record returns the capture of a variant with all optional members.
func record(t *testing.T, seed uint64, v variant.Variant) Capture {
	t.Helper()
	return (&recorder{random: rand.New(rand.NewPCG(seed, 1)), v: completed(t, v)}).record("e3wfISG9", nil)
}

// clone returns a capture whose values can be changed.
func clone(t *testing.T, c Capture) Capture {
	t.Helper()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseCapture(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// A capture with one wrong byte is explained up to the stage that uses the byte, and what comes
// after it is explained by the recorded values.
func TestOneWrongByte(t *testing.T) {
	t.Parallel()
	v := completed(t, variant.Variant{})
	whole := record(t, 1, v)
	for name, test := range map[string]struct {
		damage func(c *Capture)
		stage  string // the first that is not explained, or "" if all are
		rest   bool   // whether all other stages are explained
	}{
		"nothing":     {func(*Capture) {}, "", true},
		"a":           {func(c *Capture) { c.Private[3] ^= 1 }, StageGroup, false},
		"A":           {func(c *Capture) { c.ClientPublic[3] ^= 1 }, StageGroup, false},
		"B":           {func(c *Capture) { c.ServerPublic[3] ^= 1 }, StageSecret, false},
		"salt":        {func(c *Capture) { c.Salt[3] ^= 1 }, StageSecret, false},
		"identity":    {func(c *Capture) { c.Identity = "e3wfISG8" }, StageSecret, false},
		"password":    {func(c *Capture) { c.Password = "Tb048aX2" }, StageSecret, false},
		"S":           {func(c *Capture) { c.Premaster[3] ^= 1 }, "", true},
		"K":           {func(c *Capture) { c.Key[3] ^= 1 }, StageKey, false},
		"M1":          {func(c *Capture) { c.ClientEvidence[3] ^= 1 }, StageM1, false},
		"M2":          {func(c *Capture) { c.ServerEvidence[3] ^= 1 }, StageM2, true},
		"data":        {func(c *Capture) { c.Items[0].Data[3] ^= 1 }, StageKeys, false},
		"counter":     {func(c *Capture) { c.Items[0].Counter[3] ^= 1 }, StageKeys, false},
		"mac":         {func(c *Capture) { c.Items[0].MAC[3] ^= 1 }, StageMAC, true},
		"plaintext":   {func(c *Capture) { c.Items[0].Plaintext = "1" + c.Items[0].Plaintext[1:] }, StageCipher, true},
		"item's name": {func(c *Capture) { c.Items[0].Name = "activationCode" }, StageKeys, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := clone(t, whole)
			test.damage(&c)
			if test.stage == StageSecret {
				c.Private, c.ClientPublic = whole.Private, whole.ClientPublic
			}
			r := solve(t, c)
			first := ""
			for _, st := range r.Stages {
				if st.Outcome != Explained && first == "" {
					first = st.Name
				} else if st.Outcome != Explained && test.rest {
					t.Errorf("%s is %s, too", st.Name, st.Outcome)
				}
			}
			if first != test.stage {
				t.Errorf("the first stage that is not explained is %q, want %q", first, test.stage)
			}
			if test.stage == "" {
				wantExact(t, r, v)
			}
			if (r.Profile == nil) != (test.stage == StageGroup || test.stage == StageSecret) {
				t.Errorf("profile %+v", r.Profile)
			}
		})
	}
}

// Captures that lack members are explained as far as they go, and the report says which options
// are open.
func TestPartialCaptures(t *testing.T) {
	t.Parallel()
	v := completed(t, variant.Variant{Preset: "bouncycastle"})
	whole := record(t, 2, v)
	for name, test := range map[string]struct {
		keep func(c *Capture)
		open []string
	}{
		"S":            {func(c *Capture) { *c = Capture{Premaster: c.Premaster} }, []string{"key_function", "key_input", "m1", "m2", "key_derivation", "hkdf_salt", "hkdf_info", "counter", "mac"}},
		"K":            {func(c *Capture) { *c = Capture{Key: c.Key} }, []string{"m1", "m2", "key_derivation", "hkdf_salt", "hkdf_info", "counter", "mac"}},
		"M1":           {func(c *Capture) { *c = Capture{ClientEvidence: c.ClientEvidence} }, []string{"key_function", "key_input", "m2", "key_derivation", "hkdf_salt", "hkdf_info", "counter", "mac"}},
		"K, M2":        {func(c *Capture) { c.ClientEvidence, c.Premaster, c.Items = nil, nil, nil }, []string{"key_derivation", "hkdf_salt", "hkdf_info", "counter", "mac"}},
		"M1, item":     {func(c *Capture) { *c = Capture{ClientEvidence: c.ClientEvidence, Items: c.Items} }, []string{"m2"}},
		"no MAC":       {func(c *Capture) { c.Items[0].MAC = nil }, []string{"mac"}},
		"no plaintext": {func(c *Capture) { c.Items[0].Plaintext = "" }, nil},
		"neither":      {func(c *Capture) { c.Items[0].MAC, c.Items[0].Plaintext = nil, "" }, []string{"mac"}},
		"an item without both": {func(c *Capture) {
			c.Items = append(c.Items, Item{Name: "x", Data: []byte("?"), Counter: make([]byte, 8)})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := clone(t, whole)
			test.keep(&c)
			c.Identity, c.Password, c.Salt, c.Private = whole.Identity, whole.Password, whole.Salt, whole.Private
			c.ClientPublic, c.ServerPublic = whole.ClientPublic, whole.ServerPublic
			r := solveFrom(t, v, c, false)
			wantExactBut(t, r, v, test.open)
			for _, st := range r.Stages {
				if st.Outcome == Unexplained || st.Outcome == NotRecorded && st.Advice == "" {
					t.Errorf("%+v", st)
				}
			}
		})
	}
}

// One exchange whose values begin with no zeros leaves the forms open that differ in them. Those
// whose A, B and S do settle the forms, also together with the first one.
func TestSeveralCaptures(t *testing.T) {
	t.Parallel()
	v := completed(t, variant.Variant{Preset: "nimbus"})
	r := &recorder{random: rand.New(rand.NewPCG(3, 1)), v: v}
	first := r.record("e3wfISG9", nil)
	open := func(captures ...Capture) (options []string) {
		report := solve(t, captures...)
		wantExact(t, report, v)
		for _, d := range report.Differences {
			options = append(options, d.Option)
			for _, o := range d.Others {
				if o.When == "" || o.Record == "" || o.Probability < 0 || o.Probability > 1 {
					t.Errorf("%+v", o)
				}
			}
		}
		return options
	}
	zero := func(digits string) bool { return strings.HasPrefix(digits, "00") }
	if got := open(first); !slices.Contains(got, "u") || !slices.Contains(got, "key_input") {
		t.Errorf("open are %q", got)
	}
	public := r.record("e3wfISG9", func(_, b, _ string) bool { return zero(b) })
	if got := open(first, public); slices.Contains(got, "u") || !slices.Contains(got, "key_input") {
		t.Errorf("with a zero in B, open are %q", got)
	}
	secret := r.record("e3wfISG9", func(_, _, s string) bool { return zero(s) })
	if got := open(first, public, secret); slices.Contains(got, "u") || slices.Contains(got, "key_input") {
		t.Errorf("with zeros in B and S, open are %q", got)
	}

	other := record(t, 4, variant.Variant{Preset: "bouncycastle"})
	report := solve(t, first, secret, other)
	for _, st := range report.Stages {
		if apart := strings.HasPrefix(st.Advice, "capture 3 has nothing in common"); apart != (st.Name == StageM2) || apart != (st.Outcome == Unexplained) {
			t.Errorf("%+v", st)
		}
	}
	if report.Profile != nil {
		t.Errorf("found %+v", report.Profile)
	}
}

// Groups that no profile may use are recognised, and the report says why they are refused. The
// same holds for variants that are weaker than the protocol.
func TestRefusedVariants(t *testing.T) {
	t.Parallel()
	for option, v := range map[string]variant.Variant{
		"group": {Group: "rfc3526-2048"},
		"x":     {Preset: "nimbus", Inner: variant.Template{"P"}},
	} {
		c := record(t, 5, v)
		r := solveFrom(t, completed(t, v), c, false)
		if r.Profile == nil || !strings.HasPrefix(r.Refused, option+": ") {
			t.Errorf("%s: %+v", option, r)
		}
	}
}

// The search ends with its context, tells its progress, and needs a capture.
func TestSearchCanBeEnded(t *testing.T) {
	t.Parallel()
	c := record(t, 6, variant.Variant{})
	c.Password = "wrong one"
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := Solve(ctx, []Capture{c}, Options{Progress: func(capture, done, all int) {
		calls++
		if capture != 0 || done != calls || all < done {
			t.Errorf("%d %d %d", capture, done, all)
		}
		if done == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("%v after %d", err, calls)
	}
	if _, err := Solve(t.Context(), nil, Options{}); err == nil {
		t.Error("no capture is enough")
	}
}

// The comparison with another variant parts at the first value that depends on the difference.
func TestCompare(t *testing.T) {
	t.Parallel()
	c := record(t, 7, variant.Variant{})
	for _, test := range []struct {
		v    variant.Variant
		part string
	}{
		{variant.Variant{}, ""},
		{variant.Variant{Group: "rfc3526-2048"}, "A"},
		{variant.Variant{Multiplier: variant.Template{"N", "g.minimal"}}, "S"},
		{variant.Variant{Hash: "sha384"}, "S"},
		{variant.Variant{KeyFunction: variant.KeyNone}, "K"},
		{variant.Variant{ClientEvidence: variant.Template{"A", "B", "K"}}, "M1"},
		{variant.Variant{ServerEvidence: variant.Template{"A", "M1", "S"}}, "M2"},
		{variant.Variant{MACInput: variant.Template{"data", "counter"}}, "items[0].mac"},
		{variant.Variant{CounterLayout: variant.CounterLast}, "items[0].plaintext"},
	} {
		list, err := Compare(c, completed(t, test.v))
		if err != nil {
			t.Error(err)
			continue
		}
		parted := ""
		for _, x := range list {
			if x.Recorded && !x.Equal && parted == "" {
				parted = x.Name
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", x, x, x), fmt.Sprintf("%x", x.Value[:2])) {
				t.Errorf("%s is printed", x.Name)
			}
		}
		if parted != test.part {
			t.Errorf("%+v parts at %q, want %q", test.v, parted, test.part)
		}
	}
	if _, err := Compare(c, completed(t, variant.Variant{CounterLayout: variant.CounterBlock})); err == nil {
		t.Error("a counter of another size is no error")
	}
	c.ServerPublic = nil
	if _, err := Compare(c, completed(t, variant.Variant{})); err == nil {
		t.Error("B = 0 is no error")
	}
}

// Exchanges of an unmodified library, which cmd/caddy/testdata/srp-client recorded, are explained by
// the presets for it.
func TestCapturesOfLibrary(t *testing.T) {
	t.Parallel()
	for file, v := range map[string]variant.Variant{
		"fast-srp-hap-2048.json":       {Preset: "fast-srp-hap"},
		"fast-srp-hap-3072.json":       {Preset: "fast-srp-hap", Group: "rfc5054-3072"},
		"fast-srp-hap-4096.json":       {Preset: "fast-srp-hap", Group: "rfc5054-4096", Hash: "sha256"},
		"fast-srp-hap-plain-2048.json": {Preset: "fast-srp-hap", ClientEvidence: variant.Template{"A", "B", "S"}},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			c, err := ParseCapture(content)
			if err != nil {
				t.Fatal(err)
			}
			r := solve(t, c)
			wantExact(t, r, completed(t, v))
			if err := Try(c, *r.Profile); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each preset is found as itself: the profile has no option but the preset where no other preset
// computes the same.
func TestPresetsAreFound(t *testing.T) {
	t.Parallel()
	for preset := range variant.Presets {
		v := variant.Variant{Preset: preset}
		c := record(t, 8, v)
		r := solveFrom(t, completed(t, v), c, false)
		want := preset
		switch preset {
		case "fast-srp-hap":
			want = variant.DefaultPreset
		case "secure-remote-password":
			c.LowerCase = true
			r = solveFrom(t, completed(t, v), c, false)
		}
		if r.Profile == nil || !reflect.DeepEqual(*r.Profile, variant.Variant{Preset: want}) {
			t.Errorf("%s: found %+v", preset, r.Profile)
		}
	}
}

// A server without a profile records exchanges whose formulas it does not know; with one it carries
// them out to the end. What is to begin with a zero byte does.
func TestServerRecords(t *testing.T) {
	t.Parallel()
	complete := completed(t, variant.Variant{})
	p, err := srp.New("phone", complete)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]ServerOptions{
		"unknown": {Group: "rfc5054-2048", Zero: []string{"salt", "B"}},
		"B":       {Profile: &complete, Zero: []string{"B"}},
		"S":       {Profile: &complete, Zero: []string{"salt", "S"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Identity, o.Password, o.Message = "e3wfISG9", "Tb048aX1", "0123456789ABCDEF"
			s, err := NewServer(o)
			if err != nil {
				t.Fatal(err)
			}
			phone, err := p.NewClient(o.Identity, o.Password)
			if err != nil {
				t.Fatal(err)
			}
			a := phone.Private()
			public, salt, err := s.Begin(phone.Public())
			if err != nil {
				t.Fatal(err)
			}
			evidence, err := phone.Prove(salt, public)
			if err != nil {
				t.Fatal(err)
			}
			c, answer, err := s.Prove(evidence)
			if err != nil {
				t.Fatal(err)
			}
			c.Private = a
			if (answer != nil) != (o.Profile != nil) {
				t.Fatalf("answer %v", answer)
			}
			if answer != nil {
				key, err := phone.Confirm(answer.ServerEvidence)
				if err != nil {
					t.Fatal(err)
				}
				i := answer.Item
				opened, err := p.NewSession(key, salt, phone.Public(), public).Open(seal.Item(i.Name), seal.Ciphertext{Data: i.Data, Counter: i.Counter, MAC: i.MAC})
				if err != nil || string(opened) != o.Message {
					t.Errorf("opened %v", err)
				}
			}
			r := solveFrom(t, complete, c, false)
			wantExactBut(t, r, complete, []string{"m2", "key_derivation", "hkdf_salt", "hkdf_info", "counter", "mac"})
			list, err := Compare(c, complete)
			if err != nil {
				t.Fatal(err)
			}
			zeros := map[string]bool{"salt": salt[0] == 0, "B": public[0] == 0, "S": len(list[4].Value) < p.Size()}
			for _, z := range o.Zero {
				if !zeros[z] {
					t.Errorf("%s does not begin with a zero byte", z)
				}
			}
			if _, _, err := s.Prove(evidence); !errors.Is(err, ErrNotOpen) {
				t.Errorf("a second proof: %v", err)
			}
			if _, _, err := s.Begin([]byte{1}); !errors.Is(err, ErrPublic) {
				t.Errorf("A = 1: %v", err)
			}
			if _, _, err := s.Begin(phone.Public()); err != nil {
				t.Fatal(err)
			}
			if _, answer, err := s.Prove(make([]byte, 32)); err != nil || answer != nil {
				t.Errorf("wrong evidence is answered: %v", err)
			}
		})
	}
	for _, o := range []ServerOptions{
		{Group: "rfc5054-1024"}, {Group: "rfc5054-2048", Zero: []string{"A"}}, {Group: "rfc5054-2048", Zero: []string{"S"}}, {Profile: &complete, Zero: []string{"B", "S"}},
	} {
		if _, err := NewServer(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// A file is written for its owner only, is never replaced, and is not read if others can use it.
func TestFiles(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "capture.json")
	c := record(t, 9, variant.Variant{})
	if err := WriteFile(name, c); err != nil {
		t.Fatal(err)
	}
	again, err := ReadFile(name)
	if err != nil || !reflect.DeepEqual(clone(t, c), again) {
		t.Errorf("read: %v", err)
	}
	if err := WriteFile(name, c); !errors.Is(err, fs.ErrExist) {
		t.Errorf("replaced: %v", err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(name); err == nil || !strings.Contains(err.Error(), "can be used by others") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := ReadFile(filepath.Dir(name)); err == nil {
		t.Error("a directory is read")
	}
}
