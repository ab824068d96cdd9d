package solve

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Report is what Solve found.
type Report struct {
	Stages []Stage `json:"stages"`
	// Profile is the variant to configure: a preset and the options in which it differs. It
	// is nil if the stage of S is not explained. Open options have the value of the preset.
	Profile *variant.Variant `json:"profile,omitempty"`
	// Open are the options that no recorded value decides, or that are not explained.
	Open []string `json:"open,omitempty"`
	// Differences are the options with other choices that explain the captures as well.
	Differences []Difference `json:"differences,omitempty"`
	// Refused says why no gateway may use the profile. Empty if one may.
	Refused string `json:"refused,omitempty"`
}

// Complete reports whether the captures decide every option.
func (r *Report) Complete() bool { return r.Profile != nil && len(r.Open) == 0 }

// Difference is an option for which the captures leave a choice.
type Difference struct {
	Option string `json:"option"`
	// Chosen is the choice in the profile, Others are those that explain the captures as well.
	// Choices whose words are those of several others are left out.
	Chosen []string `json:"chosen"`
	Others []Other  `json:"others"`
}

// Other is a choice that the captures do not exclude.
type Other struct {
	Choice []string `json:"choice"`
	// When says in which exchanges the choice gives another value, and Record how to record
	// one. Probability is that of one more capture doing so, if nothing is forced.
	When        string  `json:"when"`
	Record      string  `json:"record"`
	Probability float64 `json:"probability"`
}

// join leaves the variants that explain the captures of s and also capture n, which other explains.
func (s *solution) join(other *solution, n int) {
	if !other.explains(StageSecret) || !s.explains(StageSecret) {
		s.keepWorse(other, n, nil)
		s.front, s.back = nil, nil
		return
	}
	front := intersect(s.front, other.front)
	back := intersect(s.back, other.back)
	var apart []string
	if len(front) == 0 {
		apart = append(apart, StageSecret)
	}
	if s.group.Name != other.group.Name {
		apart = append(apart, StageGroup)
	}
	if len(back) == 0 {
		for _, o := range stageOptions[2:] {
			if len(intersect(project(s.back, o.options), project(other.back, o.options))) == 0 {
				apart = append(apart, o.stage)
			}
		}
		if len(apart) == 0 {
			apart = []string{StageM1, StageM2}
		}
	}
	s.keepWorse(other, n, apart)
	s.front, s.back = front, back
}

// keepWorse takes the stages that became of capture n into the stages of all. The stages apart
// have no choice in common.
func (s *solution) keepWorse(other *solution, n int, apart []string) {
	for i := range s.stages {
		st, of := &s.stages[i], other.stages[i]
		switch {
		case slices.Contains(apart, st.Name):
			st.Outcome, st.Advice = Unexplained, fmt.Sprintf("capture %d has nothing in common with those before it: they are of different phones, or one is damaged", n+1)
		case of.Outcome == Unexplained || of.Outcome == NotReached && st.Outcome != Unexplained:
			st.Outcome, st.Tried = of.Outcome, of.Tried
			if st.Advice = of.Advice; st.Advice != "" {
				st.Advice = fmt.Sprintf("capture %d: %s", n+1, of.Advice)
			}
		case of.Outcome == Explained && st.Outcome == NotRecorded:
			*st = of
		}
	}
}

// intersect returns the variants that agree with one in each list, with the options of both.
func intersect(a, b []variant.Variant) (all []variant.Variant) {
	seen := map[string]bool{}
	for _, x := range a {
		for _, y := range b {
			if !agree(x, y) {
				continue
			}
			both := merge(x, y)
			if id := string(both.Digest()); !seen[id] {
				seen[id] = true
				all = append(all, both)
			}
		}
	}
	return all
}

// project returns the different variants with some options only.
func project(all []variant.Variant, options []string) (projected []variant.Variant) {
	for _, v := range all {
		var p variant.Variant
		for _, o := range options {
			d := dimension(o)
			d.Set(&p, d.Get(v))
		}
		projected = append(projected, p)
	}
	return intersect(projected, []variant.Variant{{}})
}

// report makes the report from what is left.
func (s *solution) report(captures []Capture) *Report {
	r := &Report{Stages: s.stages}
	if len(s.front) == 0 || len(s.back) == 0 {
		return r
	}
	s.front, s.back = s.reduce(s.front), s.reduce(s.back)
	hexCase := variant.UpperCase
	if captures[0].LowerCase {
		hexCase = variant.LowerCase
	}
	preset, front, back := s.nearest(hexCase)
	chosen := merge(front, back)
	for _, o := range stageOptions {
		if o.stage == StageKeys && (chosen.KeyDerivation == variant.DeriveHash || chosen.KeyDerivation == variant.DeriveNone) {
			continue
		}
		for _, option := range o.options {
			if len(dimension(option).Get(chosen)) == 0 && (option != "inner" || len(chosen.Exponent) == 0) {
				r.Open = append(r.Open, option)
			}
		}
	}
	chosen.HexCase = hexCase
	r.Profile = shortest(preset, chosen)
	s.differences(r, front, s.front)
	s.differences(r, back, s.back)
	complete, err := r.Profile.Complete()
	if err == nil {
		err = complete.Check()
	}
	if err != nil {
		r.Refused = err.Error()
	}
	return r
}

// shortest returns the variant with a preset and the options in which it differs from it. Options
// that are empty are those of the preset.
func shortest(preset string, v variant.Variant) *variant.Variant {
	complete, err := variant.Variant{Preset: preset}.Complete()
	if err != nil {
		panic("solve: preset " + preset + ": " + err.Error())
	}
	short := variant.Variant{Preset: preset}
	for _, d := range variant.Dimensions {
		if value := d.Get(v); len(value) > 0 && !slices.Equal(value, d.Get(complete)) {
			d.Set(&short, value)
		}
	}
	return &short
}

// nearest returns the preset from which the fewest options differ, and the front and back that
// differ least from it. Among equals, the default preset comes first, then the first candidate.
func (s *solution) nearest(hexCase string) (preset string, front, back variant.Variant) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(variant.Presets)), func(n string) bool { return n == variant.DefaultPreset })
	best := math.MaxInt
	for _, name := range append([]string{variant.DefaultPreset}, names...) {
		complete, err := variant.Variant{Preset: name}.Complete()
		if err != nil {
			panic("solve: preset " + name + ": " + err.Error())
		}
		least := func(all []variant.Variant) (nearest variant.Variant, distance int) {
			distance = math.MaxInt
			for _, v := range all {
				n := 0
				for _, d := range variant.Dimensions {
					if value := d.Get(v); len(value) > 0 && !slices.Equal(value, d.Get(complete)) {
						n++
					}
				}
				if n < distance {
					nearest, distance = v, n
				}
			}
			return nearest, distance
		}
		f, n := least(s.front)
		b, m := least(s.back)
		n += m
		if complete.HexCase != hexCase {
			n++
		}
		if n < best {
			preset, front, back, best = name, f, b, n
		}
	}
	return preset, front, back
}

// reduce drops variants that always compute the same as another one of them.
func (s *solution) reduce(all []variant.Variant) (reduced []variant.Variant) {
	at := map[string]int{}
	for _, v := range all {
		canonical := s.canonical(v)
		id := string(canonical.Digest())
		i, ok := at[id]
		switch {
		case !ok:
			at[id] = len(reduced)
			reduced = append(reduced, v)
		case string(v.Digest()) == id:
			reduced[i] = v
		}
	}
	return reduced
}

// canonical returns the variant with the first of the words that always give the same bytes with
// its group, hash and key function.
func (s *solution) canonical(v variant.Variant) variant.Variant {
	rewrite := func(template variant.Template) variant.Template {
		template = slices.Clone(template)
		for i, p := range parse(template) {
			switch {
			case p.Member == variant.K && v.KeyFunction == variant.KeyNone && p.Form == variant.Full:
				template[i] = v.KeyInput[0]
			case s.constant(p.Member) && bytes.Equal(s.values.part(p), s.values.members[p.Member]):
				template[i] = string(p.Member)
			}
		}
		return template
	}
	v.ClientEvidence, v.ServerEvidence = rewrite(v.ClientEvidence), rewrite(v.ServerEvidence)
	// The interleaved hash begins with the first byte that is not zero.
	if v.KeyFunction == variant.KeyInterleave && slices.Contains([]string{"S.minimal", "S.signed"}, strings.Join(v.KeyInput, " ")) {
		v.KeyInput = variant.Template{"S"}
	}
	return v
}

// constant reports whether a member is the same in each exchange.
func (*solution) constant(m variant.Member) bool {
	return slices.Contains([]variant.Member{variant.N, variant.G, variant.X, variant.PaddedX}, m)
}

// differences adds the options in which candidates differ from the chosen one.
func (s *solution) differences(r *Report, chosen variant.Variant, all []variant.Variant) {
	for _, d := range variant.Dimensions {
		difference := Difference{Option: d.Name, Chosen: d.Get(chosen)}
		for _, v := range all {
			choice := d.Get(v)
			if slices.Equal(choice, difference.Chosen) || len(choice) == 0 ||
				slices.ContainsFunc(difference.Others, func(o Other) bool { return slices.Equal(o.Choice, choice) }) {
				continue
			}
			difference.Others = append(difference.Others, s.other(d, difference.Chosen, choice))
		}
		difference.Others = slices.DeleteFunc(slices.Clone(difference.Others), func(o Other) bool { return combined(o, difference) })
		if difference.Others != nil {
			r.Differences = append(r.Differences, difference)
		}
	}
}

// combined reports whether a choice only has words of other choices that differ in fewer words.
func combined(o Other, of Difference) bool {
	changed := changes(of.Chosen, o.Choice)
	if changed == nil {
		return false
	}
	covered := map[int]bool{}
	for _, other := range of.Others {
		part := changes(of.Chosen, other.Choice)
		if len(part) >= len(changed) {
			continue
		}
		if !slices.ContainsFunc(part, func(i int) bool { return other.Choice[i] != o.Choice[i] }) {
			for _, i := range part {
				covered[i] = true
			}
		}
	}
	return len(covered) == len(changed)
}

// changes returns the places at which two templates of the same length differ.
func changes(a, b []string) (places []int) {
	if len(a) != len(b) {
		return nil
	}
	for i := range a {
		if a[i] != b[i] {
			places = append(places, i)
		}
	}
	return places
}

// other says when a choice gives another value than the chosen one.
func (s *solution) other(d variant.Dimension, chosen, choice []string) Other {
	o := Other{Choice: choice, When: "they had the same value in these exchanges", Record: "record another exchange"}
	if d.Name == "key_function" || d.Name == "key_input" {
		o.Record = "record K, or an encrypted item with its MAC"
	}
	if d.Word || d.Text || len(chosen) != len(choice) {
		return o
	}
	var when, record []string
	same := 1.0
	a, b := parse(chosen), parse(choice)
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		if a[i].Member != b[i].Member {
			return o
		}
		e := s.event(a[i].Member, a[i].Form, b[i].Form)
		if !slices.Contains(when, e.When) {
			when, record = append(when, e.When), append(record, e.Record)
			same *= 1 - e.Probability
		}
	}
	o.When, o.Record, o.Probability = strings.Join(when, ", or "), strings.Join(slices.Compact(record), "; or "), 1-same
	return o
}

// textual reports whether a form is a text of digits.
func textual(f variant.Form) bool {
	return slices.Contains([]variant.Form{variant.Hex, variant.UpperHex, variant.Digits, variant.UpperDigits}, f)
}

// event says when two forms of a member differ.
func (s *solution) event(m variant.Member, a, b variant.Form) Other {
	if m == variant.Identity {
		return Other{
			When: "the identifier has letters of both cases", Record: "record an exchange with such an identifier",
		}
	}
	var e Other
	signed := a == variant.Signed || b == variant.Signed
	switch {
	case textual(a) || textual(b):
		e.When, e.Probability = fmt.Sprintf("%s begins with the digit 0", m), s.small(m, 4)
	case signed:
		e.When, e.Probability = fmt.Sprintf("the top bit of %s is set", m), 1-s.small(m, 1)
	default:
		e.When, e.Probability = fmt.Sprintf("%s begins with a zero byte", m), s.small(m, 8)
	}
	switch {
	case signed:
		e.Record = "record more exchanges"
	case m == variant.Salt:
		e.Record = "`profile record --zero salt` forces it; salts of a gateway never begin so"
	case m == variant.B:
		e.Record = "`profile record --zero B` forces it"
	case m == variant.S:
		e.Record = "`profile record --zero S --profile FILE` forces it, with this profile"
	case m == variant.A:
		e.Record = "only the phone can force it, with a fixed a in a debug build; otherwise record more exchanges"
	case m == variant.IdentityHash:
		e.Record = "record an exchange with the identifier " + s.zeroIdentity()
	default:
		e.Record = "record more exchanges"
	}
	return e
}

// small returns the probability of a member beginning with bits that are all zero.
func (s *solution) small(m variant.Member, bits uint) float64 {
	if !slices.Contains([]variant.Member{variant.A, variant.B, variant.S}, m) {
		return math.Pow(2, -float64(bits))
	}
	below := new(big.Int).Lsh(big.NewInt(1), uint(s.group.Bits)-bits)
	p, _ := new(big.Rat).SetFrac(below, s.group.n).Float64()
	return p
}

// zeroIdentity returns an identifier whose hash begins with a zero byte.
func (s *solution) zeroIdentity() string {
	for i := 0; ; i++ {
		if identity := fmt.Sprintf("user%d", i); s.values.digest([]byte(identity))[0] == 0 {
			return identity
		}
	}
}
