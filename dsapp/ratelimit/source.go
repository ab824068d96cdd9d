package ratelimit

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

const (
	// subscriberBits is the usual length of the prefix of one IPv6 subscriber.
	subscriberBits = 64
	// siteBits is the length of the shortest prefix that a subscriber can usually get: a
	// site with 65536 of the prefixes above.
	siteBits = 48
	// siteFactor is the ratio of the limit of a /48 to that of a source.
	siteFactor = 16
)

// Source identifies who causes events: a client address or an application. It is
// comparable. The zero Source stands for an unknown address.
type Source struct {
	name string
	// prefix is an IPv4 address, or the /64 or /48 of an IPv6 address.
	prefix netip.Prefix
}

// String returns the address, the prefix or the name.
func (s Source) String() string {
	switch {
	case s.name != "":
		return s.name
	case !s.prefix.IsValid():
		return "unknown address"
	case s.prefix.IsSingleIP():
		return s.prefix.Addr().String()
	default:
		return s.prefix.String()
	}
}

// site returns the /48 that contains the /64 of an IPv6 address, and false for other
// sources. IPv4 addresses have none: one of them is often shared by many subscribers.
func (s Source) site() (Source, bool) {
	if s.prefix.Bits() != subscriberBits {
		return Source{}, false
	}
	return Source{prefix: netip.PrefixFrom(s.prefix.Addr(), siteBits).Masked()}, true
}

// ApplicationSource returns the source for the application with a name.
func ApplicationSource(name string) Source { return Source{name: name} }

// AddressMapper maps client addresses to sources. The zero AddressMapper knows only the
// NAT64 prefix 64:ff9b::/96.
type AddressMapper struct {
	nat64 []netip.Prefix
}

// wellKnown is the well-known NAT64 prefix of RFC 6052.
var wellKnown = netip.MustParsePrefix("64:ff9b::/96")

// NewAddressMapper returns an AddressMapper that knows 64:ff9b::/96 and the given NAT64
// prefixes. The error is an *option.Error about the first prefix that is invalid or
// overlaps another one.
func NewAddressMapper(nat64 ...netip.Prefix) (*AddressMapper, error) {
	for i, p := range nat64 {
		if err := checkNAT64(p); err != nil {
			return nil, option.Errorf("nat64_prefixes", "NAT64 prefix %s: %s", p, err)
		}
		for _, other := range append([]netip.Prefix{wellKnown}, nat64[:i]...) {
			if p.Overlaps(other) {
				return nil, option.Errorf("nat64_prefixes", "NAT64 prefix %s: overlaps %s", p, other)
			}
		}
	}
	return &AddressMapper{nat64: slices.Clone(nat64)}, nil
}

// checkNAT64 checks a prefix by the rules of RFC 6052, section 2.2.
func checkNAT64(p netip.Prefix) error {
	if !p.Addr().Is6() || p.Addr().Is4In6() {
		return errors.New("must be an IPv6 prefix")
	}
	if !slices.Contains([]int{32, 40, 48, 56, 64, 96}, p.Bits()) {
		return errors.New("length must be 32, 40, 48, 56, 64 or 96")
	}
	if p != p.Masked() {
		return errors.New("has bits set beyond its length")
	}
	if p.Addr().As16()[8] != 0 {
		return errors.New("bits 64 to 71 must be 0")
	}
	return nil
}

// Source returns the source of a client address. For an IPv4-mapped address and one in a
// NAT64 prefix it is the embedded IPv4 address, for another IPv6 address its /64, since
// one subscriber usually has a whole /64. Zones are ignored. For all invalid addresses it
// is the zero Source.
func (a *AddressMapper) Source(addr netip.Addr) Source {
	if !addr.IsValid() {
		return Source{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return Source{prefix: netip.PrefixFrom(addr, 32)}
	}
	if v4, ok := a.embedded(addr); ok {
		return Source{prefix: netip.PrefixFrom(v4, 32)}
	}
	return Source{prefix: netip.PrefixFrom(addr, subscriberBits).Masked()}
}

// embedded returns the IPv4 address in an address with a NAT64 prefix. It follows the
// prefix, but for bits 64 to 71, which are 0.
func (a *AddressMapper) embedded(addr netip.Addr) (netip.Addr, bool) {
	p := wellKnown
	if !p.Contains(addr) {
		i := slices.IndexFunc(a.nat64, func(p netip.Prefix) bool { return p.Contains(addr) })
		if i < 0 {
			return netip.Addr{}, false
		}
		p = a.nat64[i]
	}
	b := addr.As16()
	if b[8] != 0 {
		return netip.Addr{}, false
	}
	var v4 [4]byte
	from := p.Bits() / 8
	for i := range v4 {
		if from == 8 {
			from++
		}
		v4[i] = b[from]
		from++
	}
	return netip.AddrFrom4(v4), true
}
