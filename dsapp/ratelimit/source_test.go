package ratelimit

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// v4 returns the source of an IPv4 address, a different one for every i.
func v4(i int) Source {
	return new(AddressMapper).Source(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i)))))
}

// v6 returns the source of an IPv6 address, with a /48 for every site and a /64 of it for
// every subnet.
func v6(site, subnet int) Source {
	a := [16]byte{0x20, 15: 1}
	binary.BigEndian.PutUint32(a[2:], uint32(site))
	binary.BigEndian.PutUint16(a[6:], uint16(subnet))
	return new(AddressMapper).Source(netip.AddrFrom16(a))
}

// Addresses have these sources. The examples of NAT64 are those of RFC 6052, section 2.4.
func TestSourceOfAnAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ nat64, addr, want string }{
		{"", "192.0.2.1", "192.0.2.1"},
		{"", "::ffff:192.0.2.1", "192.0.2.1"},
		{"", "::ffff:192.0.2.1%eth0", "192.0.2.1"},
		{"", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"", "2001:db8:1:2::", "2001:db8:1:2::/64"},
		{"", "2001:db8:1:3::", "2001:db8:1:3::/64"},
		{"", "::1", "::/64"},
		{"", "fe80::1%eth0", "fe80::/64"},
		{"", "fe80::2%eth1", "fe80::/64"},
		{"", "64:ff9b::192.0.2.33", "192.0.2.33"},
		{"", "64:ff9b::192.0.2.33%eth0", "192.0.2.33"},
		{"", "64:ff9b::1:c000:221", "64:ff9b::/64"},
		{"", "64:ff9b:1::c000:221", "64:ff9b:1::/64"},
		{"2001:db8::/32", "2001:db8:c000:221::", "192.0.2.33"},
		{"2001:db8::/32", "64:ff9b::192.0.2.33", "192.0.2.33"},
		{"2001:db8:100::/40", "2001:db8:1c0:2:21::", "192.0.2.33"},
		{"2001:db8:122::/48", "2001:db8:122:c000:2:2100::", "192.0.2.33"},
		{"2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::", "192.0.2.33"},
		{"2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::", "192.0.2.33"},
		{"2001:db8:122:344::/64", "2001:db8:122:345:c0:2:2100::", "2001:db8:122:345::/64"},
		{"2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33", "192.0.2.33"},
		// Bits 64 to 71 of a translated address are 0.
		{"2001:db8:122:300::/56", "2001:db8:122:3c0:100:221::", "2001:db8:122:3c0::/64"},
	} {
		var nat64 []netip.Prefix
		if tt.nat64 != "" {
			nat64 = []netip.Prefix{netip.MustParsePrefix("2001:db8:ffff::/48"), netip.MustParsePrefix(tt.nat64)}
			if tt.nat64 == "2001:db8::/32" {
				nat64 = nat64[1:]
			}
		}
		a, err := NewAddressMapper(nat64...)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Source(netip.MustParseAddr(tt.addr)).String(); got != tt.want {
			t.Errorf("NAT64 %q: the source of %s is %q, want %q", tt.nat64, tt.addr, got, tt.want)
		}
	}
}

// The source of an unknown address is the zero Source, has a text, and differs from that of
// every application.
func TestSourceOfNoAddress(t *testing.T) {
	t.Parallel()
	s := new(AddressMapper).Source(netip.Addr{})
	if s != (Source{}) || s.String() == "" {
		t.Errorf("source is %q", s)
	}
	if s == ApplicationSource(s.String()) || v4(1) == ApplicationSource(v4(1).String()) {
		t.Error("an application with the name of an address is counted as that address")
	}
	if got := ApplicationSource("mobile-app").String(); got != "mobile-app" {
		t.Errorf("name is %q", got)
	}
}

// For any NAT64 prefix, IPv4 address and suffix, the source is that of the IPv4 address.
func TestSourceBehindNAT64(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SampledFrom([]int{32, 40, 48, 56, 64, 96}).Draw(t, "length")
		a := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "prefix and suffix"))
		a[0], a[8] = 0x2a, 0
		prefix := netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked()
		v4 := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "IPv4")))
		// RFC 6052, section 2.2: the columns of its figure 1.
		at := map[int][4]int{32: {4, 5, 6, 7}, 40: {5, 6, 7, 9}, 48: {6, 7, 9, 10}, 56: {7, 9, 10, 11}, 64: {9, 10, 11, 12}, 96: {12, 13, 14, 15}}[bits]
		for i, b := range v4.As4() {
			a[at[i]] = b
		}
		addresses, err := NewAddressMapper(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := addresses.Source(netip.AddrFrom16(a)), addresses.Source(v4); got != want {
			t.Fatalf("the source of %s is %s, want %s", netip.AddrFrom16(a), got, want)
		}
	})
}

// Invalid and overlapping NAT64 prefixes are refused.
func TestNAT64PrefixesThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ prefixes, want string }{
		{"192.0.2.0/24", "nat64_prefixes: NAT64 prefix 192.0.2.0/24: must be an IPv6 prefix"},
		{"2001:db8::/33", "nat64_prefixes: NAT64 prefix 2001:db8::/33: length must be 32, 40, 48, 56, 64 or 96"},
		{"2001:db8::/128", "nat64_prefixes: NAT64 prefix 2001:db8::/128: length must be 32, 40, 48, 56, 64 or 96"},
		{"::/0", "nat64_prefixes: NAT64 prefix ::/0: length must be 32, 40, 48, 56, 64 or 96"},
		{"2001:db8:1::/32", "nat64_prefixes: NAT64 prefix 2001:db8:1::/32: has bits set beyond its length"},
		{"2001:db8:122:344:100::/96", "nat64_prefixes: NAT64 prefix 2001:db8:122:344:100::/96: bits 64 to 71 must be 0"},
		{"64:ff9b::/96", "nat64_prefixes: NAT64 prefix 64:ff9b::/96: overlaps 64:ff9b::/96"},
		{"64:ff9b::/32", "nat64_prefixes: NAT64 prefix 64:ff9b::/32: overlaps 64:ff9b::/96"},
		{"2001:db8:1::/48 2001:db8:2::/48 2001:db8:1::/96", "nat64_prefixes: NAT64 prefix 2001:db8:1::/96: overlaps 2001:db8:1::/48"},
		{"2001:db8::/96 2001:db8::/96", "nat64_prefixes: NAT64 prefix 2001:db8::/96: overlaps 2001:db8::/96"},
	} {
		var prefixes []netip.Prefix
		for text := range strings.FieldsSeq(tt.prefixes) {
			prefixes = append(prefixes, netip.MustParsePrefix(text))
		}
		if _, err := NewAddressMapper(prefixes...); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error is %v, want %q", tt.prefixes, err, tt.want)
		}
	}
	mapped := netip.PrefixFrom(netip.MustParseAddr("::ffff:0:0"), 96)
	for _, p := range []netip.Prefix{{}, mapped} {
		if _, err := NewAddressMapper(p); err == nil || !strings.HasSuffix(err.Error(), "must be an IPv6 prefix") {
			t.Errorf("%s: error is %v", p, err)
		}
	}
}

func BenchmarkSource(b *testing.B) {
	addresses, err := NewAddressMapper(netip.MustParsePrefix("2001:db8:122::/48"))
	if err != nil {
		b.Fatal(err)
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8:1:2:3:4:5:6", "2001:db8:122:c000:2:2100::"} {
		b.Run(addr, func(b *testing.B) {
			a := netip.MustParseAddr(addr)
			b.ReportAllocs()
			for b.Loop() {
				addresses.Source(a)
			}
		})
	}
}
