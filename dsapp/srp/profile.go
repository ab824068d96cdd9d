package srp

import (
	"context"
	"crypto/sha1" //nolint:gosec // for phones that have nothing else, see the package comment
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Sizes in bytes.
const (
	// SaltSize is the size of a salt.
	SaltSize = 16
	// PrivateSize is the size of the private values a and b. RFC 5054, sections
	// 2.5.3 and 2.5.4, asks for at least 256 random bits.
	PrivateSize = 32
	// EvidenceSize is the size of the evidence messages M1 and M2 with SHA-256.
	EvidenceSize = sha256.Size
)

// DefaultProfile is the name of the profile to use when none is configured.
const DefaultProfile = "rfc5054-2048-sha256"

// profiles lists the profiles of the package comment.
var profiles = []*Profile{
	named("rfc5054-2048-sha256", "rfc5054-2048"),
	named("rfc5054-3072-sha256", "rfc5054-3072"),
	named("rfc5054-4096-sha256", "rfc5054-4096"),
}

// fields has the fields of all groups that profiles can have. Neither a configuration nor a
// client can add one.
var fields = newFields()

// newFields returns a field for each group that is not weak.
func newFields() map[string]*field {
	all := make(map[string]*field)
	for _, g := range variant.Groups {
		if g.Weak == "" {
			all[g.Name] = newField(g.Prime, g.Generator)
		}
	}
	return all
}

// hashes has the hashes of variants.
var hashes = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// Profile is a variant of SRP-6a: a group, a hash and formulas. It is immutable and safe for
// concurrent use.
type Profile struct {
	name     string
	identity []byte // digest of the variant, nil for the profiles of the package
	variant  variant.Variant
	formulas
	hash     func() hash.Hash
	hashSize int
	*field
	// group returns the group, which the first call makes.
	group func() *group
}

// field is the prime of a group with its generator, and the kernel for it, which all profiles
// with the group share.
type field struct {
	prime     []byte
	generator byte
	// one and minusOne are 1 and N-1 as Size bytes. Public values are between them.
	one, minusOne []byte
	// selected returns the kernel, which the first call selects and tests.
	selected func() selection
}

// selection is a kernel with its name, and the names of those that failed their self-test.
type selection struct {
	kernel
	name   string
	failed []string
}

// group holds what is computed once for a profile, and its kernel.
type group struct {
	kernel
	p *Profile
	// name is the name of the kernel.
	name string
	// failed lists the kernels that failed their self-test, until takeFailures returns
	// them.
	failed atomic.Pointer[[]string]

	k      element // multiplier
	minusK element // -k mod N, with which the client subtracts

	// constants has the members of templates that do not change.
	constants members

	workspaces sync.Pool
}

// New returns the profile with the formulas of a variant. The name has 1 to 32 characters of
// printable ASCII. The error is an *option.Error about an option of the variant, or about
// `name`.
func New(name string, v variant.Variant) (*Profile, error) {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, option.Errorf("name", "must have 1 to %d characters of printable ASCII without spaces", maxName)
	}
	v, err := v.Complete()
	if err != nil {
		return nil, err
	}
	if err := v.Check(); err != nil {
		return nil, err
	}
	p := newProfile(name, fields[v.Group], hashes[v.Hash], v)
	p.identity = v.Digest()
	return p, nil
}

// maxName is the greatest length of a name.
const maxName = 32

// named returns a profile of the package.
func named(name, group string) *Profile {
	v, err := variant.Variant{Group: group}.Complete()
	if err != nil {
		panic("srp: " + err.Error())
	}
	return newProfile(name, fields[group], hashes[v.Hash], v)
}

// newProfile returns the profile with a variant that was checked. Group and hash of the variant
// are those of f and h.
func newProfile(name string, f *field, h func() hash.Hash, v variant.Variant) *Profile {
	p := &Profile{name: name, variant: v, formulas: newFormulas(v), hash: h, field: f}
	p.hashSize = h().Size()
	p.wide = p.hashSize > PrivateSize
	p.group = sync.OnceValue(func() *group { return p.newGroup(p.selected()) })
	return p
}

// newField returns the field with the given hexadecimal digits of the prime.
func newField(prime string, generator byte) *field {
	n, err := hex.DecodeString(prime)
	if err != nil {
		panic("srp: prime: " + err.Error())
	}
	f := &field{prime: n, generator: generator}
	f.one = f.pad([]byte{1})
	f.minusOne = append([]byte(nil), n...)
	// N is odd.
	f.minusOne[len(n)-1] ^= 1
	f.selected = sync.OnceValue(func() selection { return f.selectKernel(implementations) })
	return f
}

// newGroup returns the group with the kernel that was selected.
func (p *Profile) newGroup(s selection) *group {
	g := p.newGroupWith(s.kernel, s.name)
	g.failed.Store(&s.failed)
	return g
}

// newGroupWith returns the group with a kernel and its name.
func (p *Profile) newGroupWith(k kernel, name string) *group {
	g := &group{p: p, kernel: k, name: name, constants: p.constants()}
	g.workspaces.New = func() any { return newWorkspace(g) }

	elements := newElements(k, 2)
	g.k, g.minusK = elements[0], elements[1]
	c := k.calculator()
	c.fromBytes(g.k, p.pad(p.multiplier()))
	c.fromBytes(g.minusK, p.minusOne)
	c.product(g.minusK, g.minusK, g.k)
	return g
}

// Profiles returns all profiles.
func Profiles() []*Profile { return slices.Clone(profiles) }

// LookupProfile returns the profile with the given name. The error lists all names.
func LookupProfile(name string) (*Profile, error) {
	known := make([]string, len(profiles))
	for i, p := range profiles {
		if p.name == name {
			return p, nil
		}
		known[i] = p.name
	}
	return nil, fmt.Errorf("srp: unknown profile %q, known are %s", name, strings.Join(known, ", "))
}

// Prepare selects and tests the kernel of the profile and computes its table of powers,
// once in a process. This takes some milliseconds, and tens of milliseconds for the larger
// groups without a fast kernel. Without Prepare the first exchange does it.
//
// Prepare logs the name of the kernel. The first call also logs a warning for each kernel
// that failed its self-test, which should be investigated. Exchanges still work then, but
// take longer.
func (p *Profile) Prepare(ctx context.Context, logger *slog.Logger) {
	for _, kernel := range p.takeFailures() {
		logger.WarnContext(ctx, "srp kernel failed its self-test and is not used; exchanges take longer",
			slog.String("kernel", kernel), slog.String("profile", p.name))
	}
	for _, warning := range p.variant.Warnings() {
		logger.WarnContext(ctx, "srp profile: "+warning, slog.String("profile", p.name))
	}
	logger.InfoContext(ctx, "srp kernel", slog.String("kernel", p.Kernel()), slog.String("profile", p.name))
}

// takeFailures returns the names of the kernels that failed their self-test. Later calls
// return none.
func (p *Profile) takeFailures() []string {
	if first := p.group().failed.Swap(nil); first != nil {
		return *first
	}
	return nil
}

// Kernel returns the name of the kernel that the profile uses on this processor.
func (p *Profile) Kernel() string { return p.group().name }

// Name returns the name of the profile, as LookupProfile takes it.
func (p *Profile) Name() string { return p.name }

// Digest returns 32 bytes that change with every option of the variant, or nothing for the
// profiles of the package, whose names say everything.
func (p *Profile) Digest() []byte { return slices.Clone(p.identity) }

// Variant returns the complete variant of the profile.
func (p *Profile) Variant() variant.Variant { return p.variant }

// Size returns the size in bytes of the prime N, and of A, B and the verifier.
func (f *field) Size() int { return len(f.prime) }

// EvidenceSize returns the size in bytes of M1 and M2.
func (p *Profile) EvidenceSize() int { return p.hashSize }

// pad returns b with leading zeros up to the size of N (PAD of RFC 5054, section 2.1).
func (f *field) pad(b []byte) []byte {
	padded := make([]byte, f.Size())
	copy(padded[len(padded)-len(b):], b)
	return padded
}

// digest returns the hash of the parts, one after the other.
func (p *Profile) digest(parts ...[]byte) []byte {
	h := p.hash()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}
