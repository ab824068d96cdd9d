package srp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Sizes in bytes.
const (
	// SaltSize is the size of a salt.
	SaltSize = 16
	// PrivateSize is the size of the private values a and b. RFC 5054, sections
	// 2.5.3 and 2.5.4, asks for at least 256 random bits.
	PrivateSize = 32
	// EvidenceSize is the size of the evidence messages M1 and M2.
	EvidenceSize = 32
	// KeySize is the size of the session key K.
	KeySize = 32
)

// DefaultProfile is the name of the profile to use when none is configured.
const DefaultProfile = "rfc5054-2048-sha256"

// The safe primes of RFC 5054, appendix A. Their generators differ: 2 is a square modulo
// the two larger primes, and with a square as generator every B would reveal one bit of
// the verifier.
const (
	prime2048 = "" +
		"AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050" +
		"A37329CBB4A099ED8193E0757767A13DD52312AB4B03310DCD7F48A9DA04FD50" +
		"E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B8" +
		"55F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773B" +
		"CA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748" +
		"544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6" +
		"AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB6" +
		"94B5C803D89F7AE435DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73"

	prime3072 = "" +
		"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
		"3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7" +
		"ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2" +
		"08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF"

	prime4096 = "" +
		"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
		"3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7" +
		"ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2" +
		"08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7" +
		"88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8" +
		"DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2" +
		"233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9" +
		"93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF"
)

// profiles lists all profiles. Neither a configuration nor a client can add a group.
var profiles = []*Profile{
	newProfile("rfc5054-2048-sha256", prime2048, 2, sha256.New),
	newProfile("rfc5054-3072-sha256", prime3072, 5, sha256.New),
	newProfile("rfc5054-4096-sha256", prime4096, 5, sha256.New),
}

// Profile is a group, a hash and the formulas of the package comment. It is immutable and
// safe for concurrent use.
type Profile struct {
	name      string
	hash      func() hash.Hash
	prime     []byte
	generator byte
	// one and minusOne are 1 and N-1 as Size bytes. Public values are between them.
	one, minusOne []byte
	// group returns the group, which the first call makes.
	group func() *group
}

// group holds what is computed once for a profile, and its kernel.
type group struct {
	kernel
	// name is the name of the kernel.
	name string
	// failed lists the kernels that failed their self-test, until takeFailures returns
	// them.
	failed atomic.Pointer[[]string]

	k         element // multiplier
	minusK    element // -k mod N, with which the client subtracts
	groupHash []byte  // H(N) xor H(g), the start of M1

	workspaces sync.Pool
}

// newProfile returns a profile for the prime with the given hexadecimal digits. The hash
// has at most PrivateSize bytes.
func newProfile(name, prime string, generator byte, h func() hash.Hash) *Profile {
	n, err := hex.DecodeString(prime)
	if err != nil {
		panic("srp: prime of " + name + ": " + err.Error())
	}
	p := &Profile{name: name, hash: h, prime: n, generator: generator}
	p.one = p.pad([]byte{1})
	p.minusOne = append([]byte(nil), n...)
	// N is odd.
	p.minusOne[len(n)-1] ^= 1
	p.group = sync.OnceValue(func() *group { return p.newGroup(implementations) })
	return p
}

// newGroup returns the group with the kernel that selectKernel selects.
func (p *Profile) newGroup(from []implementation) *group {
	k, name, failed := p.selectKernel(from)
	g := p.newGroupWith(k, name)
	g.failed.Store(&failed)
	return g
}

// newGroupWith returns the group with a kernel and its name.
func (p *Profile) newGroupWith(k kernel, name string) *group {
	g := &group{kernel: k, name: name, groupHash: p.groupHash()}
	g.workspaces.New = func() any { return newWorkspace(g, p.hash(), p.Size()) }

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

// Size returns the size in bytes of the prime N, and of A, B and the verifier.
func (p *Profile) Size() int { return len(p.prime) }

// pad returns b with leading zeros up to the size of N (PAD of RFC 5054, section 2.1).
func (p *Profile) pad(b []byte) []byte {
	padded := make([]byte, p.Size())
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
