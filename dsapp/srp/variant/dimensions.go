package variant

// Dimension is one thing that variants differ in: an option with the choices that libraries
// are known to make. A choice, as the option, is one word or the words of a template.
type Dimension struct {
	// Name is the option's name in a configuration.
	Name string
	// Word says that the option is one of the choices. Otherwise it is a text or a template,
	// and the choices are those that are known.
	Word bool
	// Text says that the option is a text of any form. All others are templates.
	Text bool
	// Choices has the choices, that of the default profile first.
	Choices [][]string

	field func(*Variant) field
}

// field is an option of a Variant: a text or a template.
type field struct {
	text     *string
	template *Template
}

// Get returns the value of the option, nil if it is empty.
func (d Dimension) Get(v Variant) []string {
	switch f := d.field(&v); {
	case f.template != nil:
		return *f.template
	case *f.text == "":
		return nil
	default:
		return []string{*f.text}
	}
}

// Set sets the option to a choice.
func (d Dimension) Set(v *Variant, choice []string) {
	switch f := d.field(v); {
	case f.template != nil:
		*f.template = choice
	case len(choice) > 0:
		*f.text = choice[0]
	default:
		*f.text = ""
	}
}

// Dimensions lists what variants differ in. Every option of Variant but the preset is in it
// once, so that the choices of all dimensions are the space of known variants. Some of their
// combinations are refused by Check.
var Dimensions = []Dimension{
	{"group", true, false, groupNames(), text(func(v *Variant) *string { return &v.Group })},
	{"hash", true, false, each("sha256", "sha1", "sha384", "sha512"), text(func(v *Variant) *string { return &v.Hash })},
	{"k", false, false, [][]string{
		{"N", "g"}, {"N", "g.minimal"}, {"N.signed", "g.signed"},
	}, template(func(v *Variant) *Template { return &v.Multiplier })},
	{"inner", false, false, [][]string{
		{"I", "=:", "P"}, {"I.lower", "=:", "P"}, {"I.upper", "=:", "P"}, {"=:", "P"}, {"P"}, {"I", "P"},
	}, template(func(v *Variant) *Template { return &v.Inner })},
	{"x", false, false, [][]string{
		{"s", "inner"},
		{"s.minimal", "inner"},
		{"s.signed", "inner"},
		{"s.hex", "inner"},
		{"s.HEX", "inner"},
		{"s", "inner.minimal"},
		{"s.hex", "inner.hex"},
		{"s.HEX", "inner.HEX"},
		{"s.HEX", "inner.DIGITS"},
		{"s", "I", "=:", "P"},
		{"s", "I", "P"},
		{"s", "P"},
		{"H(I)", "H(P)", "s"},
	}, template(func(v *Variant) *Template { return &v.Exponent })},
	{"u", false, false, [][]string{
		{"A", "B"}, {"A.minimal", "B.minimal"}, {"A.signed", "B.signed"}, {"A.hex", "B.hex"}, {"A.HEX", "B.HEX"}, {"A.digits", "B.digits"},
	}, template(func(v *Variant) *Template { return &v.Scrambler })},
	{"key_function", true, false, each(KeyHash, KeyNone, KeyMGF1, KeyInterleave), text(func(v *Variant) *string { return &v.KeyFunction })},
	{"key_input", false, false, each("S", "S.minimal", "S.signed", "S.hex", "S.HEX", "S.digits"), template(func(v *Variant) *Template { return &v.KeyInput })},
	{"m1", false, false, clientEvidence(), template(func(v *Variant) *Template { return &v.ClientEvidence })},
	{"m2", false, false, serverEvidence(), template(func(v *Variant) *Template { return &v.ServerEvidence })},
	{"hex_case", true, false, each(UpperCase, LowerCase), text(func(v *Variant) *string { return &v.HexCase })},
	{"key_derivation", true, false, each(DeriveHKDF, DeriveHash, DeriveNone), text(func(v *Variant) *string { return &v.KeyDerivation })},
	{"hkdf_salt", true, false, each(SaltTranscript, SaltSalt, SaltNone), text(func(v *Variant) *string { return &v.HKDFSalt })},
	{"hkdf_info", false, true, each("DSAPP-SRP v1 <item> <purpose>", "<item> <purpose>", "<purpose>"), text(func(v *Variant) *string { return &v.HKDFInfo })},
	{"counter", true, false, each(CounterFirst, CounterLast, CounterBlock), text(func(v *Variant) *string { return &v.CounterLayout })},
	{"mac", false, false, [][]string{{"counter", "data"}, {"data", "counter"}, {"data"}}, template(func(v *Variant) *Template { return &v.MACInput })},
}

func text(of func(*Variant) *string) func(*Variant) field {
	return func(v *Variant) field { return field{text: of(v)} }
}

func template(of func(*Variant) *Template) func(*Variant) field {
	return func(v *Variant) field { return field{template: of(v)} }
}

// each returns choices of one word.
func each(words ...string) [][]string {
	choices := make([][]string, len(words))
	for i, w := range words {
		choices[i] = []string{w}
	}
	return choices
}

func groupNames() [][]string {
	choices := make([][]string, len(Groups))
	for i, g := range Groups {
		choices[i] = []string{g.Name}
	}
	return choices
}

// numbers are the forms in which proofs of libraries have A, B and S.
var numbers = []Form{Full, Minimal, Digits, Signed}

// clientEvidence returns the choices of M1: each sequence with its numbers in each form. With a
// hashed key, S has no form of its own there.
func clientEvidence() (choices [][]string) {
	for _, salt := range []Member{Salt, Salt + ".minimal"} {
		for _, x := range []Member{X, PaddedX, X + ".minimal", PaddedX + ".minimal"} {
			for _, identity := range []Member{IdentityHash, IdentityHash + ".minimal", Identity} {
				for _, form := range numbers {
					choices = append(choices, words(x, identity, salt, in(A, form), in(B, form), K))
				}
			}
		}
	}
	for _, form := range numbers {
		choices = append(choices,
			words(in(A, form), in(B, form), in(S, form)), words(in(A, form), in(B, form), K),
			words(K, in(A, form), in(B, form), IdentityHash, Salt, N, in(G, form)))
	}
	return choices
}

// serverEvidence returns the choices of M2.
func serverEvidence() (choices [][]string) {
	for _, m1 := range []Member{M1, M1 + ".minimal", M1 + ".padded", M1 + ".hex", M1 + ".digits"} {
		for _, form := range numbers {
			choices = append(choices, words(in(A, form), m1, K), words(in(A, form), m1, in(S, form)))
		}
		choices = append(choices, words(K, m1))
	}
	return choices
}

// in returns the word for a member in a form.
func in(m Member, f Form) Member {
	if f == Full {
		return m
	}
	return m + "." + Member(f)
}

func words(members ...Member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = string(m)
	}
	return list
}
