package solve

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Server plays the server of exchanges with a debug phone of a test user, to record them. It does
// not need to know the formulas: without a profile its B is a random number, which says nothing
// about the password, and the exchange ends with the phone's evidence. With a profile the exchange
// goes on to the end. It is safe for concurrent use and has one exchange at a time.
type Server struct {
	o     ServerOptions
	group group
	salt  []byte

	mu sync.Mutex
	// open is the exchange that awaits evidence, nil if there is none.
	open   *Capture
	values *values // of that exchange, with a profile
}

// ServerOptions are the options of a Server.
type ServerOptions struct {
	Identity, Password string // of the test user
	// Profile is the complete variant by which the phone computes, if it is known.
	Profile *variant.Variant
	// Group is the name of the group without a profile.
	Group string
	// Zero lists the values that are to begin with a zero byte: `salt`, and one of `B` and `S`.
	// Only with a profile can it be S.
	Zero []string
	// Message is what is encrypted for the phone, with a profile.
	Message string
}

// Answer is what the phone gets for its evidence.
type Answer struct {
	ServerEvidence []byte
	Item           Item
}

// The errors of a Server.
var (
	// ErrPublic means that A is not between 1 and N-1.
	ErrPublic = errors.New("must be a public value of the group")
	// ErrNotOpen means that no exchange awaits evidence.
	ErrNotOpen = errors.New("no exchange awaits evidence")
)

// NewServer returns a server with a random salt. An error says which option is wrong.
func NewServer(o ServerOptions) (*Server, error) {
	name := o.Group
	if o.Profile != nil {
		name = o.Profile.Group
	}
	g, ok := variant.FindGroup(name)
	if !ok {
		return nil, fmt.Errorf("the group %q is not known", name)
	}
	s := &Server{o: o, group: newGroup(g), salt: make([]byte, 16)}
	for _, zero := range o.Zero {
		if !slices.Contains([]string{"salt", "B", "S"}, zero) {
			return nil, errors.New("only salt, B and S can be made to begin with a zero byte")
		}
	}
	if s.zero("S") && o.Profile == nil {
		return nil, errors.New("without a profile, S cannot be made to begin with a zero byte: solve a capture without that first")
	}
	if s.zero("S") && s.zero("B") {
		return nil, errors.New("either B or S can be made to begin with a zero byte, both would take minutes: record two exchanges")
	}
	rand.Read(s.salt)
	s.salt[0] |= 1
	if s.zero("salt") {
		s.salt[0] = 0
	}
	return s, nil
}

func (s *Server) zero(name string) bool { return slices.Contains(s.o.Zero, name) }

// Begin answers A with B, of the length of the prime, and the salt. The exchange that was open
// before is forgotten.
func (s *Server) Begin(clientPublic []byte) (serverPublic, salt []byte, err error) {
	public := number(clientPublic)
	minusOne := new(big.Int).Sub(s.group.n, big.NewInt(1))
	if public.Cmp(big.NewInt(1)) <= 0 || public.Cmp(minusOne) >= 0 {
		return nil, nil, ErrPublic
	}
	c := &Capture{Identity: s.o.Identity, Password: s.o.Password, Salt: s.salt, ClientPublic: s.group.pad(public)}
	var v *values
	if s.o.Profile == nil {
		c.Group = s.group.Name
		c.ServerPublic = s.randomPublic()
	} else {
		v = s.choose(c)
		c.LowerCase = s.o.Profile.HexCase == variant.LowerCase
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.values = c, v
	return c.ServerPublic, s.salt, nil
}

// randomPublic returns a random B.
func (s *Server) randomPublic() []byte {
	b := make([]byte, s.group.size)
	for {
		rand.Read(b)
		if s.zero("B") {
			b[0] = 0
		}
		if x := number(b); x.Sign() > 0 && x.Cmp(s.group.n) < 0 {
			return b
		}
	}
}

// choose draws b until B and S begin as wanted, which takes some hundred attempts. It sets B and
// returns the members with S.
func (s *Server) choose(c *Capture) *values {
	p, g := s.o.Profile, s.group
	c.ServerPublic = []byte{1} // not known yet
	v := newValues(c, g, hashNamed(p.Hash))
	verifier := g.exp(g.g, v.exponent(parse(p.Inner), parse(p.Exponent)))
	ofPassword := new(big.Int).Mul(number(v.hashed(parse(p.Multiplier))), verifier)
	private := make([]byte, 32)
	for {
		rand.Read(private)
		b := number(private)
		public := new(big.Int).Add(ofPassword, g.exp(g.g, b))
		v.members[variant.B] = g.pad(public.Mod(public, g.n))
		if public.Sign() == 0 || s.zero("B") && v.members[variant.B][0] != 0 {
			continue
		}
		base := g.exp(verifier, number(v.hashed(parse(p.Scrambler))))
		base.Mul(base, number(c.ClientPublic)).Mod(base, g.n)
		v.members[variant.S] = g.pad(g.exp(base, b))
		if s.zero("S") && v.members[variant.S][0] != 0 {
			continue
		}
		c.ServerPublic = v.members[variant.B]
		return v
	}
}

// Prove takes the phone's evidence and returns the capture of the exchange. It lacks a, which only
// the phone knows. With a profile the answer is what the phone is to get, or nil if the evidence
// is wrong.
func (s *Server) Prove(evidence []byte) (Capture, *Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return Capture{}, nil, ErrNotOpen
	}
	c, v, p := *s.open, s.values, s.o.Profile
	s.open, s.values = nil, nil
	c.ClientEvidence = evidence
	if p == nil {
		return c, nil, nil
	}
	v.finish(*p)
	if !slices.Equal(v.members[variant.M1], evidence) {
		return c, nil, nil
	}
	i := Item{Name: string(seal.LicenseActivationMessage), Data: []byte(s.o.Message), Counter: make([]byte, 8)}
	if p.CounterLayout == variant.CounterBlock {
		i.Counter = make([]byte, 16)
	}
	rand.Read(i.Counter)
	encryption, authentication := v.itemKeys(*p, i.Name, v.members[variant.K])
	if encryption == nil {
		return c, nil, nil
	}
	i.Data = decrypt(p.CounterLayout, encryption, i)
	i.MAC = authenticate(parse(p.MACInput), authentication, i)
	return c, &Answer{v.members[serverEvidence], i}, nil
}
