package gate

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"sluice/internal/lib/limit"
)

// Facts are what rules go by in a request. What is not known is zero. The
// strings may be views of a buffer; they are not kept.
type Facts struct {
	Class    Class
	Activity string
	Path     string
	User     string
	Phone    string     // as the token claims it
	IP       netip.Addr // of the shopper, or of the last proxy that is not ours
	Claims   *Claims    // what else the token says; nil: nothing
	Hints    uint8      // of the program that asks, by HintsOf
	Shows    Shows
}

// Shows are the slips that a request shows, "" for each that it does not.
type Shows struct{ Pass, Ticket, Clearance string }

// Origin is where facts come from. They are good until the next call.
type Origin interface{ Facts() *Facts }

// part is one thing that keys are made of; a set of them is their sum.
type part uint8

const (
	byUser part = 1 << iota
	byIP
	byPhone
	byPath
	byActivity
	parts = 5
)

var partNames = [parts]string{"user", "ip", "phone", "path", "activity"}

func partsOf(key []string) (all part) {
	for i, name := range partNames {
		if slices.Contains(key, name) {
			all |= 1 << i
		}
	}
	return all
}

// known are the parts that a request has.
func (f *Facts) known() (have part) {
	for i, is := range [parts]bool{f.User != "", f.IP.IsValid(), f.Phone != "", f.Path != "", f.Activity != ""} {
		if is {
			have |= 1 << i
		}
	}
	return have
}

// network is who an address stands for: an IPv4 address, or the /64 of an IPv6
// one, since a single line has all of those.
func network(a netip.Addr) (b [16]byte) {
	a = a.Unmap()
	b = a.As16()
	if a.Is6() {
		clear(b[8:])
	}
	return b
}

// keys makes the keys of one request, each part once however many rules ask.
type keys struct {
	facts  *Facts
	hash   limit.Hash
	hashed part
	of     [parts]limit.Key
}

// key is that of a combination, in one order whatever the rule's.
func (k *keys) key(of part) limit.Key {
	if of == 0 {
		return limit.Only
	}
	var key limit.Key
	for i := range parts {
		bit := part(1) << i
		if of&bit == 0 {
			continue
		}
		if k.hashed&bit == 0 {
			k.of[i], k.hashed = k.hashPart(bit), k.hashed|bit
		}
		if key == 0 {
			key = k.of[i]
		} else {
			key = key.And(k.of[i])
		}
	}
	return key
}

func (k *keys) hashPart(of part) limit.Key {
	switch of {
	case byUser:
		return k.hash.String(k.facts.User)
	case byPhone:
		return k.hash.String(k.facts.Phone)
	case byPath:
		return k.hash.String(k.facts.Path)
	case byActivity:
		return k.hash.String(k.facts.Activity)
	}
	address := network(k.facts.IP)
	return k.hash.Bytes(address[:])
}

// reason is why a rule does not concern a request.
type reason uint8

const (
	concerned reason = iota
	otherClass
	otherActivity
	otherPath
	lacksKey
	notChosen
	switchedOff
)

var reasons = [...]string{
	concerned: "", otherClass: "it is for another class of routes", otherActivity: "it is for another activity", otherPath: "it is for other paths",
	lacksKey:    "the request lacks a part of its key",
	notChosen:   "its percentage leaves this one out",
	switchedOff: "it is off",
}

// concerns answers why a rule leaves a request of its class alone.
func (r *ready) concerns(f *Facts, have part) reason {
	switch {
	case r.Activity != "" && r.Activity != f.Activity:
		return otherActivity
	case r.Path != "" && !strings.HasPrefix(f.Path, r.Path):
		return otherPath
	case r.parts&^have != 0:
		return lacksKey
	case r.Percent < 100 && !r.chosen(f, have):
		return notChosen
	}
	return concerned
}

// chosen says whether a rule that is tried on a part of the shoppers is tried on
// this one. By what is limited, where that is a person: then a key is in or out
// for all of its requests.
//
// The hash has no seed, so that every gateway chooses the same ones, now and
// after a restart; the rule's own id is in it, so that two rules are not tried
// on the same people.
func (r *ready) chosen(f *Facts, have part) bool {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3 // FNV-1a, 64 bits
	h := uint64(offset)
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		h = (h ^ 0xff) * prime // in no id: "a","bc" is not "ab","c"
	}
	add(r.ID)
	by := r.parts & (byUser | byPhone | byIP)
	if by == 0 {
		by = have & (byUser | byIP)
	}
	switch {
	case by&byUser != 0:
		add(f.User)
	case by&byPhone != 0:
		add(f.Phone)
	default:
		for _, b := range network(f.IP) {
			h = (h ^ uint64(b)) * prime
		}
	}
	// FNV leaves its high bits poor; the finalizer is that of SplitMix64.
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	part, _ := bits.Mul64(h^h>>31, 100)
	return int(part) < r.Percent
}
