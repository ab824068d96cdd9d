package solve

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Options of Solve.
type Options struct {
	// Progress, if not nil, is called with the number of secrets S that have been computed
	// for a capture, and with that of all there are. The search ends with the first that fits.
	Progress func(capture, done, all int)
}

// Solve finds the variants that explain all of the captures. The error is that of the context,
// or says that there is no capture.
func Solve(ctx context.Context, captures []Capture, o Options) (*Report, error) {
	if len(captures) == 0 {
		return nil, errors.New("no capture is given")
	}
	var all *solution
	for i := range captures {
		s := search{ctx: ctx, capture: &captures[i], progress: func(done, of int) {
			if o.Progress != nil {
				o.Progress(i, done, of)
			}
		}}
		if all != nil {
			s.first = all.front
		}
		one := s.run()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if all == nil {
			all = one
		} else {
			all.join(one, i)
		}
	}
	return all.report(captures), nil
}

// Names of stages.
const (
	StageGroup  = "group"
	StageSecret = "secret S"
	StageKey    = "session key K"
	StageM1     = "evidence M1"
	StageM2     = "evidence M2"
	StageKeys   = "keys of items"
	StageCipher = "encryption"
	StageMAC    = "MAC"
)

// stageOptions has the options that each stage settles, in the order of the stages.
var stageOptions = []struct {
	stage   string
	options []string
}{
	{StageGroup, []string{"group"}},
	{StageSecret, []string{"hash", "k", "inner", "x", "u"}},
	{StageKey, []string{"key_function", "key_input"}},
	{StageM1, []string{"m1"}},
	{StageM2, []string{"m2"}},
	{StageKeys, []string{"key_derivation", "hkdf_salt", "hkdf_info"}},
	{StageCipher, []string{"counter"}},
	{StageMAC, []string{"mac"}},
}

// Outcome is what became of a stage.
type Outcome string

// The outcomes.
const (
	Explained   Outcome = "explained"
	Unexplained Outcome = "not explained"
	NotRecorded Outcome = "not recorded"
	NotReached  Outcome = "not reached"
)

// Stage is a step of the search.
type Stage struct {
	Name    string   `json:"name"`
	Options []string `json:"options"` // that it settles
	Outcome Outcome  `json:"outcome"`
	// Tried is the number of different values that were compared with the recorded one.
	Tried int `json:"tried"`
	// Advice says what the outcome means and what to do. Empty if there is nothing to say.
	Advice string `json:"advice,omitempty"`
}

// solution is what explains one capture, or several.
type solution struct {
	stages []Stage
	group  group
	hash   hashFunction
	// front has the options of the stage of S, back those of later stages. Each element of
	// one goes with each of the other. Options of stages that are not explained are empty.
	front, back []variant.Variant
	values      *values // of the first capture
}

// stage returns the stage with a name.
func (s *solution) stage(name string) *Stage {
	i := slices.IndexFunc(s.stages, func(x Stage) bool { return x.Name == name })
	return &s.stages[i]
}

func newSolution() *solution {
	s := &solution{}
	for _, o := range stageOptions {
		s.stages = append(s.stages, Stage{Name: o.stage, Options: o.options, Outcome: NotReached})
	}
	return s
}

// explains reports whether the stage is explained.
func (s *solution) explains(name string) bool { return s.stage(name).Outcome == Explained }

// search is the search in one capture.
type search struct {
	ctx      context.Context
	capture  *Capture
	progress func(done, all int)
	// first are the options to try before all others.
	first []variant.Variant

	*solution
	secret *big.Int
	keys   []sessionKey // candidates for K
	tuples []tuple
}

// tuple is a candidate for the options of the stages after that of S, with the K that it gives.
type tuple struct {
	options variant.Variant
	key     []byte
}

func (s *search) run() *solution {
	s.solution = newSolution()
	if !s.findGroup() || !s.findSecret() {
		return s.solution
	}
	s.findKey()
	s.findEvidence()
	s.findItems()
	s.openKey()
	seen := map[string]bool{}
	for _, t := range s.tuples {
		if id := string(t.options.Digest()); !seen[id] {
			seen[id] = true
			s.back = append(s.back, t.options)
		}
	}
	return s.solution
}

func (s *search) settle(name string, outcome Outcome, tried int, advice string) {
	st := s.stage(name)
	st.Outcome, st.Tried, st.Advice = outcome, tried, advice
}

// findGroup finds the group with A = g^a.
func (s *search) findGroup() bool {
	a, public := number(s.capture.Private), number(s.capture.ClientPublic)
	for _, g := range variant.Groups {
		g := newGroup(g)
		if public.Cmp(big.NewInt(1)) <= 0 || public.Cmp(g.n) >= 0 || g.exp(g.g, a).Cmp(public) != 0 {
			continue
		}
		s.group = g
		advice := ""
		if s.capture.Group != "" && s.capture.Group != g.Name {
			advice = "the capture names the group " + s.capture.Group + ", but A = g^a in " + g.Name
		}
		s.settle(StageGroup, Explained, len(variant.Groups), advice)
		return true
	}
	s.settle(StageGroup, Unexplained, len(variant.Groups),
		"A is g^a in no known group: a or A is not what the phone computed with, or its group is another one")
	return false
}

// candidate is a number with the options that give it.
type candidate struct {
	value   *big.Int
	options []variant.Variant
}

// distinct returns the different values of choices.
func distinct(choices []variant.Variant, value func(variant.Variant) *big.Int) (all []candidate) {
	at := map[string]int{}
	for _, c := range choices {
		x := value(c)
		i, ok := at[string(x.Bytes())]
		if !ok {
			i = len(all)
			at[string(x.Bytes())] = i
			all = append(all, candidate{value: x})
		}
		all[i].options = append(all[i].options, c)
	}
	return all
}

// dimension returns the dimension of an option.
func dimension(option string) variant.Dimension {
	i := slices.IndexFunc(variant.Dimensions, func(d variant.Dimension) bool { return d.Name == option })
	return variant.Dimensions[i]
}

// choices returns variants that have one choice of the option each.
func choices(option string) []variant.Variant {
	d := dimension(option)
	all := make([]variant.Variant, len(d.Choices))
	for i, c := range d.Choices {
		d.Set(&all[i], c)
	}
	return all
}

// privateChoices returns the choices of x, with each choice of inner if x contains it.
func privateChoices() (all []variant.Variant) {
	for _, x := range choices("x") {
		if !slices.ContainsFunc(parse(x.Exponent), func(p variant.Part) bool { return p.Member == variant.Inner }) {
			all = append(all, x)
			continue
		}
		for _, inner := range choices("inner") {
			inner.Exponent = x.Exponent
			all = append(all, inner)
		}
	}
	return all
}

// possibleHashes returns the hashes that the sizes of the evidence leave.
func (c *Capture) possibleHashes() []hashFunction {
	for _, evidence := range [][]byte{c.ClientEvidence, c.ServerEvidence} {
		if evidence != nil {
			return hashesOf(len(evidence))
		}
	}
	return hashFunctions
}

// factors are the different values of k, x and u with one hash.
type factors struct {
	values  *values
	k, x, u []candidate
	test    secretTest
}

// findSecret finds the hash, k, x and u with which S, or a value that is computed from S, is the
// recorded one. For each k and x it takes three powers, and one more for each u.
func (s *search) findSecret() bool {
	if public := number(s.capture.ServerPublic); public.Sign() == 0 || public.Cmp(s.group.n) >= 0 {
		s.settle(StageSecret, Unexplained, 0, "B is not between 0 and the prime: it is not what the phone got")
		return false
	}
	var all []factors
	total, done := 0, 0
	for _, h := range s.capture.possibleHashes() {
		v := newValues(s.capture, s.group, h)
		f := factors{
			values: v,
			k:      distinct(choices("k"), func(c variant.Variant) *big.Int { return number(v.hashed(parse(c.Multiplier))) }),
			x:      distinct(privateChoices(), func(c variant.Variant) *big.Int { return v.exponent(parse(c.Inner), parse(c.Exponent)) }),
			u:      distinct(choices("u"), func(c variant.Variant) *big.Int { return number(v.hashed(parse(c.Scrambler))) }),
			test:   newSecretTest(s.capture, v),
		}
		for _, list := range [][]candidate{f.k, f.x, f.u} {
			slices.SortStableFunc(list, func(a, b candidate) int { return boolean(s.isFirst(b)) - boolean(s.isFirst(a)) })
		}
		total += len(f.k) * len(f.x) * len(f.u)
		all = append(all, f)
	}
	a := number(s.capture.Private)
	for _, f := range all {
		for _, x := range f.x {
			gx := s.group.exp(s.group.g, x.value)
			for _, k := range f.k {
				base := f.values.base(k.value, gx)
				ofA, ofX := s.group.exp(base, a), s.group.exp(base, x.value)
				for _, u := range f.u {
					if s.ctx.Err() != nil {
						return false
					}
					secret := s.group.exp(ofX, u.value)
					secret.Mod(secret.Mul(secret, ofA), s.group.n)
					done++
					s.progress(done, total)
					if f.test.fits(secret) {
						s.accept(f, secret, k, x, u, total)
						return true
					}
				}
			}
		}
	}
	s.settle(StageSecret, Unexplained, total,
		"no known k, x, u and session key give the recorded values: a member before M1 is not what the phone computed with, such as the password, or one of the formulas is another one. "+
			"If S or K was not recorded, record it: then the formulas of M1 are not part of this stage")
	return false
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isFirst reports whether one of the options of a candidate is in s.first.
func (s *search) isFirst(c candidate) bool {
	return slices.ContainsFunc(c.options, func(o variant.Variant) bool {
		return slices.ContainsFunc(s.first, func(f variant.Variant) bool { return agree(o, f) })
	})
}

// agree reports whether two variants have equal options where both have one.
func agree(a, b variant.Variant) bool {
	return !slices.ContainsFunc(variant.Dimensions, func(d variant.Dimension) bool {
		x, y := d.Get(a), d.Get(b)
		return len(x) > 0 && len(y) > 0 && !slices.Equal(x, y)
	})
}

// accept notes the secret that fits.
func (s *search) accept(f factors, secret *big.Int, k, x, u candidate, total int) {
	for _, k := range k.options {
		for _, x := range x.options {
			for _, u := range u.options {
				x.Group, x.Hash, x.Multiplier, x.Scrambler = s.group.Name, f.values.hash.name, k.Multiplier, u.Scrambler
				s.front = append(s.front, x)
			}
		}
	}
	s.secret, s.values, s.hash = secret, f.values, f.values.hash
	s.values.members[variant.S] = s.group.pad(secret)
	s.keys = f.test.sessionKeys()
	advice := ""
	if s.capture.Premaster != nil && number(s.capture.Premaster).Cmp(secret) != 0 {
		advice = "the recorded S is another one, although it gives the other recorded values: S was not recorded correctly"
	}
	s.settle(StageSecret, Explained, total, advice)
}

// sessionKey is a value of K with the options that give it.
type sessionKey struct {
	value   []byte
	options []variant.Variant
}

// secretTest compares what is computed from a secret S with what was recorded.
type secretTest struct {
	capture *Capture
	values  *values
	inputs  [][]variant.Part // the choices of key_input
	// skeletons are the templates of M1 that give different bytes.
	skeletons []skeleton
}

// skeleton is a template with the bytes of all members but K and S.
type skeleton struct {
	pieces []piece
	hasKey bool
}

// piece is either bytes or a part with K or S.
type piece struct {
	bytes []byte
	part  variant.Part
}

func newSecretTest(c *Capture, v *values) secretTest {
	t := secretTest{capture: c, values: v}
	for _, input := range choices("key_input") {
		t.inputs = append(t.inputs, parse(input.KeyInput))
	}
	if c.ClientEvidence == nil {
		return t
	}
	seen := map[string]bool{}
	for _, m1 := range choices("m1") {
		var s skeleton
		var id []byte
		for _, p := range parse(m1.ClientEvidence) {
			if p.Member == variant.K || p.Member == variant.S {
				s.pieces = append(s.pieces, piece{part: p})
				s.hasKey = s.hasKey || p.Member == variant.K
				id = fmt.Appendf(id, "|%s.%s|", p.Member, p.Form)
				continue
			}
			b := v.part(p)
			s.pieces = append(s.pieces, piece{bytes: b})
			id = hex.AppendEncode(id, b)
		}
		if !seen[string(id)] {
			seen[string(id)] = true
			t.skeletons = append(t.skeletons, s)
		}
	}
	return t
}

// evidence returns the hash of a skeleton with the members K and S of the values.
func (t secretTest) evidence(s skeleton) []byte {
	h := t.values.hash.new()
	for _, p := range s.pieces {
		if p.bytes != nil {
			h.Write(p.bytes)
		} else {
			h.Write(t.values.part(p.part))
		}
	}
	return h.Sum(nil)
}

// sessionKeys returns the different session keys of the secret that is a member of the values.
func (t secretTest) sessionKeys() (all []sessionKey) {
	at := map[string]int{}
	for _, function := range choices("key_function") {
		for n, input := range choices("key_input") {
			input.KeyFunction = function.KeyFunction
			value := t.values.key(function.KeyFunction, t.values.part(t.inputs[n][0]))
			i, ok := at[string(value)]
			if !ok {
				i = len(all)
				at[string(value)] = i
				all = append(all, sessionKey{value: value})
			}
			all[i].options = append(all[i].options, input)
		}
	}
	return all
}

// fits reports whether S, K or M1 is the recorded one with this secret.
func (t secretTest) fits(secret *big.Int) bool {
	t.values.members[variant.S] = t.values.group.pad(secret)
	if t.capture.Premaster != nil && secret.Cmp(number(t.capture.Premaster)) == 0 {
		return true
	}
	keys := t.sessionKeys()
	if t.capture.Key != nil && slices.ContainsFunc(keys, func(k sessionKey) bool { return bytes.Equal(k.value, t.capture.Key) }) {
		return true
	}
	for _, s := range t.skeletons {
		for _, k := range keys {
			t.values.members[variant.K] = k.value
			if bytes.Equal(t.evidence(s), t.capture.ClientEvidence) {
				return true
			}
			if !s.hasKey {
				break
			}
		}
	}
	return false
}

// findKey finds the key function. Without a recorded K all are candidates.
func (s *search) findKey() {
	tried := len(s.keys)
	outcome, advice := Explained, ""
	if c := s.capture; c.Key != nil {
		s.keys = slices.DeleteFunc(s.keys, func(k sessionKey) bool { return !bytes.Equal(k.value, c.Key) })
		if len(s.keys) == 0 {
			// Later stages use the recorded one.
			s.keys = []sessionKey{{c.Key, []variant.Variant{{}}}}
			outcome, advice = Unexplained, "K comes from S in no known way, or was not recorded correctly"
		}
	}
	for _, k := range s.keys {
		for _, o := range k.options {
			s.tuples = append(s.tuples, tuple{o, k.value})
		}
	}
	s.settle(StageKey, outcome, tried, advice)
}

// openKey leaves the key function open if the recorded values go with several session keys, so that
// none of them depends on K.
func (s *search) openKey() {
	if !slices.ContainsFunc(s.tuples, func(t tuple) bool { return !bytes.Equal(t.key, s.tuples[0].key) }) {
		return
	}
	s.tuples = slices.DeleteFunc(s.tuples, func(t tuple) bool {
		// K is S here, and the same template with S is another candidate.
		return slices.Contains(t.options.ClientEvidence, string(variant.K)) || slices.Contains(t.options.ServerEvidence, string(variant.K))
	})
	for i := range s.tuples {
		s.tuples[i].options.KeyFunction, s.tuples[i].options.KeyInput = "", nil
	}
	s.settle(StageKey, NotRecorded, 0, "record K, or an encrypted item with its MAC: no recorded value depends on K")
}

// extend replaces each candidate by those that it becomes with further options. It returns false
// and changes nothing if there are none. options returns them for a K.
func (s *search) extend(options func(t tuple) []variant.Variant) bool {
	var all []tuple
	for _, t := range s.tuples {
		for _, o := range options(t) {
			all = append(all, tuple{merge(t.options, o), t.key})
		}
	}
	if len(all) > 0 {
		s.tuples = all
	}
	return len(all) > 0
}

// merge returns a with the options of b that a does not have.
func merge(a, b variant.Variant) variant.Variant {
	for _, d := range variant.Dimensions {
		if len(d.Get(a)) == 0 {
			d.Set(&a, d.Get(b))
		}
	}
	return a
}

// findEvidence finds M1 and M2.
func (s *search) findEvidence() {
	c, v := s.capture, s.values
	first := choices("m1")
	// evidence returns M1 of a candidate with a template.
	computed := map[string][]byte{}
	evidence := func(t tuple, m1 variant.Variant) []byte {
		id := string(t.key) + "|" + strings.Join(m1.ClientEvidence, " ")
		if computed[id] == nil {
			v.members[variant.K] = t.key
			computed[id] = v.hashed(parse(m1.ClientEvidence))
		}
		return computed[id]
	}
	switch {
	case c.ClientEvidence == nil:
		s.settle(StageM1, NotRecorded, 0, "record M1")
	case s.extend(func(t tuple) []variant.Variant {
		return only(first, func(m1 variant.Variant) bool { return bytes.Equal(evidence(t, m1), c.ClientEvidence) })
	}):
		s.settle(StageM1, Explained, len(computed), "")
	default:
		s.settle(StageM1, Unexplained, len(computed), "M1 is computed in no known way, or was not recorded correctly")
	}
	if c.ServerEvidence == nil {
		s.settle(StageM2, NotRecorded, 0, "record M2")
		return
	}
	// Without M1, each template of M1 is tried together with those of M2.
	type attempt struct {
		m1    variant.Variant
		value []byte
	}
	second := choices("m2")
	matches := map[string]bool{}
	found := s.extend(func(t tuple) (matched []variant.Variant) {
		attempts := []attempt{{value: c.ClientEvidence}}
		if c.ClientEvidence == nil {
			attempts = nil
			for _, m1 := range first {
				attempts = append(attempts, attempt{m1, evidence(t, m1)})
			}
		}
		for _, a := range attempts {
			for _, m2 := range second {
				id := string(t.key) + "|" + string(a.value) + "|" + strings.Join(m2.ServerEvidence, " ")
				if _, ok := matches[id]; !ok {
					v.members[variant.K], v.members[variant.M1] = t.key, a.value
					matches[id] = bytes.Equal(v.hashed(parse(m2.ServerEvidence)), c.ServerEvidence)
				}
				if matches[id] {
					matched = append(matched, merge(m2, a.m1))
				}
			}
		}
		return matched
	})
	if found {
		s.settle(StageM2, Explained, len(matches), "")
		if c.ClientEvidence == nil {
			s.settle(StageM1, Explained, len(computed), "found with M2")
		}
		return
	}
	s.settle(StageM2, Unexplained, len(matches), "M2 is computed in no known way, or M1 or M2 was not recorded correctly")
}

// derivations are the choices of the derivation of the keys of an item.
func derivations() (all []variant.Variant) {
	for _, v := range choices("key_derivation") {
		if v.KeyDerivation != variant.DeriveHKDF {
			all = append(all, v)
			continue
		}
		for _, salt := range choices("hkdf_salt") {
			for _, info := range choices("hkdf_info") {
				all = append(all, merge(merge(v, salt), info))
			}
		}
	}
	return all
}

// findItems finds how items are encrypted and authenticated. A derivation of keys has to explain
// the plaintext or the MAC of each item that has one of them.
func (s *search) findItems() {
	items := s.capture.Items
	if len(items) == 0 {
		for _, name := range []string{StageKeys, StageCipher, StageMAC} {
			s.settle(name, NotRecorded, 0, "record an encrypted item with its counter and MAC, and its plaintext if that is not hexadecimal")
		}
		return
	}
	var tried int
	explained := map[string][]variant.Variant{}
	layouts, macs := choices("counter"), choices("mac")
	explain := func(t tuple) []variant.Variant {
		id := string(t.key)
		if found, ok := explained[id]; ok {
			return found
		}
		var found []variant.Variant
		for _, d := range derivations() {
			tried++
			found = append(found, s.values.explainItems(d, layouts, macs, items, t.key)...)
		}
		explained[id] = found
		return found
	}
	if !s.extend(explain) {
		s.settle(StageKeys, Unexplained, tried,
			"no known derivation of keys explains the MAC or the plaintext of an item: data, counter or K was not recorded correctly, or the keys are derived in another way")
		return
	}
	s.settle(StageKeys, Explained, tried, "")
	for _, st := range []struct {
		name, member, option string
		tried                int
		recorded             func(Item) bool
	}{
		{StageCipher, "plaintext", "counter", len(layouts), func(i Item) bool { return i.Plaintext != "" }},
		{StageMAC, "mac", "mac", len(macs), func(i Item) bool { return i.MAC != nil }},
	} {
		d := dimension(st.option)
		// A candidate that explains more is preferred.
		settled := slices.DeleteFunc(slices.Clone(s.tuples), func(t tuple) bool { return len(d.Get(t.options)) == 0 })
		switch {
		case len(settled) > 0:
			s.tuples = settled
			s.settle(st.name, Explained, st.tried, "")
		case slices.ContainsFunc(items, st.recorded):
			s.settle(st.name, Unexplained, st.tried, "the "+st.member+" of an item is explained in no known way, or was not recorded correctly")
		default:
			s.settle(st.name, NotRecorded, 0, "record the "+st.member+" of an item")
		}
	}
}

// explainItems returns the options with which one derivation of keys explains the items: none if
// it does not. An option is empty if it cannot be told, or if nothing known explains its values.
func (v *values) explainItems(d variant.Variant, layouts, macs []variant.Variant, items []Item, key []byte) []variant.Variant {
	var deciphered, authentic bool
	for _, i := range items {
		encryption, authentication := v.itemKeys(d, i.Name, key)
		if encryption == nil {
			return nil
		}
		fitting := only(layouts, func(c variant.Variant) bool {
			return readable(decrypt(c.CounterLayout, encryption, i), i.Plaintext)
		})
		if i.Plaintext != "" || len(fitting) > 0 {
			layouts, deciphered = fitting, true
		}
		if i.MAC != nil {
			authentic = true
			macs = only(macs, func(c variant.Variant) bool {
				return bytes.Equal(authenticate(parse(c.MACInput), authentication, i), i.MAC)
			})
		}
	}
	open := []variant.Variant{{}}
	deciphered, authentic = deciphered && len(layouts) > 0, authentic && len(macs) > 0
	if !deciphered {
		layouts = open
	}
	if !authentic {
		macs = open
	}
	var all []variant.Variant
	for _, l := range layouts {
		for _, m := range macs {
			if deciphered || authentic {
				all = append(all, merge(merge(d, l), m))
			}
		}
	}
	return all
}

// only returns the choices that fit.
func only(choices []variant.Variant, fits func(variant.Variant) bool) []variant.Variant {
	return slices.DeleteFunc(slices.Clone(choices), func(c variant.Variant) bool { return !fits(c) })
}

// minSign is the number of hexadecimal digits from which on a plaintext is taken for the right
// one: with another key one of 2^50 has as many.
const minSign = 16

// readable reports whether a decrypted text is the plaintext, or hexadecimal digits if the
// plaintext is not known.
func readable(decrypted []byte, plaintext string) bool {
	if plaintext != "" {
		return string(decrypted) == plaintext
	}
	return len(decrypted) >= minSign && len(bytes.Trim(decrypted, "0123456789abcdefABCDEF")) == 0
}
