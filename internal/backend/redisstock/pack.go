package redisstock

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluice/internal/stock"
)

// The part of MessagePack that the scripts and the gateways tell each other:
// integers and byte strings, one after the other, without a container.

func packInt(p []byte, n int64) []byte {
	switch {
	case n >= 0 && n < 128:
		return append(p, byte(n))
	case n >= 0 && n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(p, 0xce), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(p, 0xd3), uint64(n))
	}
}

func packText(p []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		p = append(p, 0xa0|byte(n))
	case n < 1<<8:
		p = append(p, 0xd9, byte(n))
	default:
		p = binary.BigEndian.AppendUint16(append(p, 0xda), uint16(n)) // nothing here is longer than stock.MaxTerms
	}
	return append(p, s...)
}

// unpacker reads packed values. After the first that is not as expected
// everything is zero and failed is set.
type unpacker struct {
	p      string
	failed bool
}

func (u *unpacker) take(n int) string {
	if n < 0 || n > len(u.p) {
		u.p, u.failed = "", true
		return ""
	}
	s := u.p[:n]
	u.p = u.p[n:]
	return s
}

func (u *unpacker) big(n int) (v uint64) {
	for _, c := range []byte(u.take(n)) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (u *unpacker) int() int64 {
	kind := u.big(1)
	switch {
	case kind < 0x80:
		return int64(kind)
	case kind >= 0xe0:
		return int64(int8(kind))
	case kind >= 0xcc && kind <= 0xcf: // unsigned, 1, 2, 4 or 8 bytes
		return int64(u.big(1 << (kind - 0xcc)))
	case kind >= 0xd0 && kind <= 0xd3: // signed
		n := 1 << (kind - 0xd0)
		shift := 64 - 8*n
		return int64(u.big(n)<<shift) >> shift
	}
	u.failed = true
	return 0
}

func (u *unpacker) text() string {
	kind := u.big(1)
	switch {
	case kind >= 0xa0 && kind < 0xc0:
		return u.take(int(kind & 0x1f))
	case kind >= 0xd9 && kind <= 0xdb:
		return u.take(int(u.big(1 << (kind - 0xd9))))
	}
	u.failed = true
	return ""
}

func (u *unpacker) millis() stock.Millis { return stock.Millis(u.int()) }

// digest names terms; 128 bits of SHA-256, since shoppers choose some of what
// is in them.
type digest [16]byte

// record is a reservation as a bucket keeps it.
type record struct {
	key      string
	number   uint64
	epoch    uint32
	sequence uint64 // of its entry in that epoch; 0 when it was restored
	state    stock.State
	at       stock.Millis
	expires  stock.Millis
	lines    string // packed
	rest     string // packed, see packRest
}

func (r *record) pack(p []byte) []byte {
	p = packText(p, r.key)
	for _, n := range []int64{int64(r.number), int64(r.epoch), int64(r.sequence), int64(r.state), int64(r.at), int64(r.expires)} {
		p = packInt(p, n)
	}
	return packText(packText(p, r.lines), r.rest)
}

func (u *unpacker) record() record {
	return record{
		key: u.text(), number: uint64(u.int()), epoch: uint32(u.int()), sequence: uint64(u.int()),
		state: stock.State(u.int()), at: u.millis(), expires: u.millis(), lines: u.text(), rest: u.text(),
	}
}

func packLines(lines []stock.Line) string {
	p := make([]byte, 0, 64)
	for _, l := range lines {
		p = packInt(packText(p, string(l.SKU)), int64(l.Quantity))
	}
	return string(p)
}

func (u *unpacker) lines() (lines []stock.Line) {
	for u.p != "" {
		lines = append(lines, stock.Line{SKU: stock.SKU(u.text()), Quantity: int(u.int())})
	}
	return lines
}

// packRest packs what no script looks at.
func packRest(f stock.Fingerprint, terms digest, order stock.OrderID, late string, claims []string) string {
	p := make([]byte, 0, 96)
	p = append(append(p, f[:]...), terms[:]...)
	p = packText(packText(p, string(order)), late)
	for _, c := range claims {
		p = packText(p, c)
	}
	return string(p)
}

// reservation is the record without its terms and as it stands, never Pending.
func (r *record) reservation(p stock.Place, user stock.UserID) (stock.Reservation, digest, error) {
	var terms digest
	lines, rest := unpacker{p: r.lines}, unpacker{p: r.rest}
	out := stock.Reservation{
		ID:   stock.ID{Activity: p.Activity, Bucket: p.Bucket, Epoch: r.epoch, Number: r.number},
		User: user, Key: r.key, Lines: lines.lines(), State: r.state, At: r.at, Expires: r.expires,
	}
	copy(out.Fingerprint[:], rest.take(len(out.Fingerprint)))
	copy(terms[:], rest.take(len(terms)))
	out.Order, out.Late = stock.OrderID(rest.text()), rest.text()
	for rest.p != "" {
		out.Claims = append(out.Claims, rest.text())
	}
	if lines.failed || rest.failed {
		return stock.Reservation{}, terms, fmt.Errorf("%w: record %s does not decode", stock.ErrCorrupt, out.ID)
	}
	return out, terms, nil
}

func (r *record) order() stock.OrderID {
	rest := unpacker{p: r.rest}
	rest.take(len(stock.Fingerprint{}) + len(digest{}))
	return stock.OrderID(rest.text())
}

// item is a SKU with its limits and where its units are.
type item struct {
	sku               stock.SKU
	index             int
	perUser, perOrder int
	allocated, free   int
	held, confirmed   int
	returned, out, in int
}

func (it *item) fields() []*int {
	return []*int{&it.index, &it.perUser, &it.perOrder, &it.allocated, &it.free, &it.held, &it.confirmed, &it.returned, &it.out, &it.in}
}

func (it *item) pack(p []byte) []byte {
	for _, n := range it.fields() {
		p = packInt(p, int64(*n))
	}
	return p
}

func (u *unpacker) item(sku stock.SKU) item {
	it := item{sku: sku}
	for _, n := range it.fields() {
		*n = int(u.int())
	}
	return it
}

// rules are an activity's phase, window, hold and limit.
type rules struct {
	phase               stock.Phase
	opens, closes, hold stock.Millis
	perUser             int
}

func (r *rules) pack() string {
	p := packInt(nil, int64(r.phase))
	for _, n := range []int64{int64(r.opens), int64(r.closes), int64(r.hold), int64(r.perUser)} {
		p = packInt(p, n)
	}
	return string(p)
}

func (u *unpacker) rules() rules {
	return rules{phase: stock.Phase(u.int()), opens: u.millis(), closes: u.millis(), hold: u.millis(), perUser: int(u.int())}
}
