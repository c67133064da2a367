package gate

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// Networks that can be listed: of IPv4 /8 to /32, of IPv6 /16 to /64 and single
// addresses.
const (
	widestIPv4   = 8
	widestIPv6   = 16
	narrowIPv6   = 64
	singleIPv6   = 63 // the bit that stands for /128
	regionIPv4   = 16 // bits of an address that choose where its widths are noted
	regionIPv6   = 32
	regions      = 1 << 16
	hashedRegion = 16 // bits of the hash of an IPv6 region
)

// widths note which networks there may be near an address: a bit for each
// length, counted down from the narrowest. They save looking for networks of all
// lengths there are, of which an address has at most a few near it. A bit is set
// before the first such network can be found, and stays when it is gone: that
// costs a look in vain.
type widths struct {
	ipv4 [regions]atomic.Uint32 // by the first 16 bits
	ipv6 [regions]atomic.Uint64 // by a hash of the first 32 bits
	wide atomic.Uint64          // of IPv6, wider than that
}

// lengthOf is the length of a prefix that a bit stands for.
func lengthOf(a netip.Addr, bit int) int {
	switch {
	case a.Is4():
		return 32 - bit
	case bit == singleIPv6:
		return 128
	}
	return narrowIPv6 - bit
}

func bitOf(p netip.Prefix) uint64 {
	switch {
	case p.Addr().Is4():
		return 1 << (32 - p.Bits())
	case p.Bits() == 128:
		return 1 << singleIPv6
	}
	return 1 << (narrowIPv6 - p.Bits())
}

// around are the widths near an address.
func (w *widths) around(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(w.ipv4[int(b[0])<<8|int(b[1])].Load())
	}
	b := a.As16()
	return w.ipv6[regionOf(b)].Load() | w.wide.Load()
}

func regionOf(b [16]byte) uint32 {
	first := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return first * 0x9e3779b1 >> (32 - hashedRegion) // 2³² / golden ratio
}

// note sets the bit of a network near all its addresses.
func (w *widths) note(p netip.Prefix) {
	bit := bitOf(p)
	switch {
	case p.Addr().Is4():
		b := p.Addr().As4()
		first := int(b[0])<<8 | int(b[1])
		for i := range 1 << max(regionIPv4-p.Bits(), 0) {
			w.ipv4[first+i].Or(uint32(bit))
		}
	case p.Bits() < regionIPv6:
		w.wide.Or(bit)
	default:
		w.ipv6[regionOf(p.Addr().As16())].Or(bit)
	}
}

// widen notes a network of an index.
func (x *listIndex) widen(subject string) {
	w := x.networks.Load()
	if w == nil {
		w = &widths{}
		x.networks.Store(w)
	}
	if p, err := networkOf(subject); err == nil {
		w.note(p)
	}
}

// hashNetwork tells networks of different lengths apart, and by the size of what
// is hashed those of IPv4 and IPv6.
func hashNetwork(seed maphash.Seed, p netip.Prefix) uint64 {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return maphash.Bytes(seed, []byte{a[0], a[1], a[2], a[3], byte(p.Bits())})
	}
	var b [17]byte
	*(*[16]byte)(b[:]) = p.Addr().As16()
	b[16] = byte(p.Bits())
	return maphash.Bytes(seed, b[:])
}

// networkOf reads an address or a network that can be listed. Its text is the
// only one for it: see canonical.
func networkOf(text string) (p netip.Prefix, err error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return p, fmt.Errorf("%q has a zone; leave out what follows the %%", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	if p, err = netip.ParsePrefix(text); err != nil {
		return p, fmt.Errorf("%q is neither an address nor a network such as 198.51.100.0/24", text)
	}
	switch length, is4 := p.Bits(), p.Addr().Is4(); {
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is IPv4 written as IPv6; write it as IPv4", text)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits beyond its length; the network is %s", text, p.Masked())
	case is4 && length < widestIPv4:
		return p, fmt.Errorf("%q is too wide; /%d at most", text, widestIPv4)
	case !is4 && length < widestIPv6:
		return p, fmt.Errorf("%q is too wide; /%d at most", text, widestIPv6)
	case !is4 && length > narrowIPv6 && length < 128:
		return p, fmt.Errorf("%q is narrower than what one line is given; list its /%d or single addresses", text, narrowIPv6)
	}
	return p, nil
}

// canonical is the text of a network.
func canonical(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// networksAround are the texts of all that could be listed and has an address in
// it, the address itself first.
func networksAround(a netip.Addr) (all []string) {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		all = append(all, a.String())
	}
	widest, narrow := widestIPv6, narrowIPv6
	if a.Is4() {
		widest, narrow = widestIPv4, 32
	}
	for length := narrow; length >= widest; length-- {
		p, err := a.Prefix(length)
		if err == nil {
			all = append(all, canonical(p))
		}
	}
	return all
}
