package stock

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The binary form of an entry: a format byte, then fields in a fixed order,
// integers as varints, strings with their length in front. Append* writes,
// DecodeEntry reads and refuses everything else.

const entryFormat = 1

// AppendEntry appends e's binary form to p. The cursor is not part of it.
func AppendEntry(p []byte, e *Entry) []byte {
	p = append(p, entryFormat, byte(e.Kind))
	p = appendText(p, string(e.Activity))
	p = binary.AppendUvarint(p, uint64(e.Bucket))
	p = binary.AppendUvarint(p, e.Sequence)
	switch e.Kind {
	case EntryOpened:
		return appendAllocation(p, e.Allocation)
	case EntryAdjusted:
		return appendAdjustment(p, e.Adjustment)
	case EntryReserved:
		return appendReservation(p, e.Reservation)
	case EntrySettled:
		s := e.Settlement
		p = binary.AppendUvarint(p, uint64(s.ID.Epoch))
		p = binary.AppendUvarint(p, s.ID.Number)
		p = append(p, byte(s.Outcome))
		return binary.AppendVarint(p, int64(s.At))
	}
	panic(fmt.Sprintf("stock: entry of kind %d", e.Kind))
}

func appendAllocation(p []byte, a *Allocation) []byte {
	p = appendText(p, a.ID)
	p = appendText(p, string(a.Activity))
	p = binary.AppendUvarint(p, uint64(a.Bucket))
	p = binary.AppendUvarint(p, uint64(a.Epoch))
	for _, t := range []Millis{a.OpensAt, a.ClosesAt, a.Hold, a.At} {
		p = binary.AppendVarint(p, int64(t))
	}
	p = binary.AppendUvarint(p, uint64(a.PerUser))
	p = binary.AppendUvarint(p, uint64(len(a.Items)))
	for _, it := range a.Items {
		p = appendText(p, string(it.SKU))
		p = binary.AppendUvarint(p, uint64(it.Units))
		p = binary.AppendUvarint(p, uint64(it.PerUser))
		p = binary.AppendUvarint(p, uint64(it.PerOrder))
	}
	return p
}

func appendAdjustment(p []byte, a *Adjustment) []byte {
	p = appendText(p, a.ID)
	p = appendText(p, string(a.Activity))
	p = appendText(p, string(a.SKU))
	p = binary.AppendVarint(p, int64(a.Delta))
	if a.Limits == nil {
		p = append(p, 0)
	} else {
		p = append(p, 1)
		p = binary.AppendUvarint(p, uint64(a.Limits.PerUser))
		p = binary.AppendUvarint(p, uint64(a.Limits.PerOrder))
	}
	if a.PerUser == nil {
		p = append(p, 0)
	} else {
		p = append(p, 1)
		p = binary.AppendUvarint(p, uint64(*a.PerUser))
	}
	for _, t := range []Millis{a.OpensAt, a.ClosesAt, a.Hold, a.At} {
		p = binary.AppendVarint(p, int64(t))
	}
	p = append(p, byte(a.Phase))
	return appendText(p, a.Reason)
}

func appendReservation(p []byte, r *Reservation) []byte {
	p = binary.AppendUvarint(p, uint64(r.ID.Epoch))
	p = binary.AppendUvarint(p, r.ID.Number)
	p = appendText(p, string(r.User))
	p = appendText(p, r.Key)
	p = append(p, r.Fingerprint[:]...)
	p = appendText(p, string(r.Order))
	p = binary.AppendUvarint(p, uint64(len(r.Lines)))
	for _, l := range r.Lines {
		p = appendText(p, string(l.SKU))
		p = binary.AppendUvarint(p, uint64(l.Quantity))
	}
	p = binary.AppendUvarint(p, uint64(len(r.Claims)))
	for _, c := range r.Claims {
		p = appendText(p, c)
	}
	p = binary.AppendUvarint(p, uint64(len(r.Terms)))
	p = append(p, r.Terms...)
	p = appendText(p, r.Late)
	p = binary.AppendVarint(p, int64(r.At))
	return binary.AppendVarint(p, int64(r.Expires-r.At))
}

func appendText(p []byte, s string) []byte {
	p = binary.AppendUvarint(p, uint64(len(s)))
	return append(p, s...)
}

// Decoder reads entries. It shares equal activity ids, SKUs and terms between
// the entries it reads, since a sale has few of them and many reservations.
// The zero Decoder is ready.
type Decoder struct {
	p      []byte
	failed bool
	shared map[string]string
	terms  map[string][]byte
}

// KindOf reads the kind of an entry's binary form without decoding it; 0 when p
// is too short to be one.
func KindOf(p []byte) EntryKind {
	if len(p) < 2 || p[0] != entryFormat {
		return 0
	}
	return EntryKind(p[1])
}

// maxShared bounds what a decoder remembers for sharing.
const maxShared = 4096

// Entry decodes one entry. p may be reused afterwards. Anything but exactly
// one well-formed entry is ErrCorrupt.
func (d *Decoder) Entry(p []byte) (Entry, error) {
	d.p, d.failed = p, false
	if d.byte() != entryFormat {
		return Entry{}, fmt.Errorf("%w: unknown entry format", ErrCorrupt)
	}
	e := Entry{Kind: EntryKind(d.byte())}
	e.Activity = ActivityID(d.sharedText(MaxID))
	e.Bucket = uint16(d.uint(math.MaxUint16))
	e.Sequence = d.uint(math.MaxUint64)
	switch e.Kind {
	case EntryOpened:
		e.Allocation = d.allocation()
	case EntryAdjusted:
		e.Adjustment = d.adjustment()
	case EntryReserved:
		e.Reservation = d.reservation()
		e.Reservation.ID.Activity, e.Reservation.ID.Bucket = e.Activity, e.Bucket
	case EntrySettled:
		s := &Settlement{ID: ID{Activity: e.Activity, Bucket: e.Bucket}}
		s.ID.Epoch = uint32(d.uint(math.MaxUint32))
		s.ID.Number = d.uint(math.MaxUint64)
		s.Outcome = State(d.byte())
		s.At = d.millis()
		e.Settlement = s
	default:
		return Entry{}, fmt.Errorf("%w: entry of kind %d", ErrCorrupt, e.Kind)
	}
	if d.failed || len(d.p) != 0 {
		return Entry{}, fmt.Errorf("%w: malformed entry of kind %d", ErrCorrupt, e.Kind)
	}
	return e, nil
}

func (d *Decoder) allocation() *Allocation {
	a := &Allocation{ID: d.text(MaxID), Activity: ActivityID(d.sharedText(MaxID))}
	a.Bucket = uint16(d.uint(math.MaxUint16))
	a.Epoch = uint32(d.uint(math.MaxUint32))
	a.OpensAt, a.ClosesAt, a.Hold, a.At = d.millis(), d.millis(), d.millis(), d.millis()
	a.PerUser = int(d.uint(math.MaxInt32))
	for n := d.uint(MaxItems); n > 0 && !d.failed; n-- {
		a.Items = append(a.Items, Item{
			SKU: SKU(d.sharedText(MaxID)), Units: int(d.uint(MaxUnits)),
			PerUser: int(d.uint(math.MaxInt32)), PerOrder: int(d.uint(math.MaxInt32)),
		})
	}
	return a
}

func (d *Decoder) adjustment() *Adjustment {
	a := &Adjustment{ID: d.text(maxAdjustmentID), Activity: ActivityID(d.sharedText(MaxID)), SKU: SKU(d.sharedText(MaxID))}
	a.Delta = int(d.int())
	if d.flag() {
		a.Limits = &ItemLimits{PerUser: int(d.uint(math.MaxInt32)), PerOrder: int(d.uint(math.MaxInt32))}
	}
	if d.flag() {
		n := int(d.uint(math.MaxInt32))
		a.PerUser = &n
	}
	a.OpensAt, a.ClosesAt, a.Hold, a.At = d.millis(), d.millis(), d.millis(), d.millis()
	a.Phase = Phase(d.byte())
	a.Reason = d.text(200)
	return a
}

func (d *Decoder) reservation() *Reservation {
	r := &Reservation{State: Held}
	r.ID.Epoch = uint32(d.uint(math.MaxUint32))
	r.ID.Number = d.uint(math.MaxUint64)
	r.User = UserID(d.text(MaxID))
	r.Key = d.text(MaxKey + 8)
	copy(r.Fingerprint[:], d.take(len(r.Fingerprint)))
	r.Order = OrderID(d.text(MaxID))
	if n := d.uint(MaxLines); n > 0 && !d.failed {
		r.Lines = make([]Line, n)
		for i := range r.Lines {
			r.Lines[i] = Line{SKU(d.sharedText(MaxID)), int(d.uint(MaxQuantity))}
		}
	}
	if n := d.uint(MaxClaims); n > 0 && !d.failed {
		r.Claims = make([]string, n)
		for i := range r.Claims {
			r.Claims[i] = d.text(128)
		}
	}
	r.Terms = d.sharedTerms()
	r.Late = d.text(MaxID + 4)
	r.At = d.millis()
	r.Expires = r.At + d.millis()
	return r
}

func (d *Decoder) fail() { d.p, d.failed = nil, true }

func (d *Decoder) take(n int) []byte {
	if n > len(d.p) {
		d.fail()
		return nil
	}
	s := d.p[:n]
	d.p = d.p[n:]
	return s
}

func (d *Decoder) byte() byte {
	if s := d.take(1); s != nil {
		return s[0]
	}
	return 0
}

func (d *Decoder) flag() bool {
	b := d.byte()
	if b > 1 {
		d.fail()
	}
	return b == 1
}

func (d *Decoder) uint(most uint64) uint64 {
	v, n := binary.Uvarint(d.p)
	if n <= 0 || v > most {
		d.fail()
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *Decoder) int() int64 {
	v, n := binary.Varint(d.p)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *Decoder) millis() Millis { return Millis(d.int()) }

func (d *Decoder) bytes(most int) []byte { return d.take(int(d.uint(uint64(most)))) }

func (d *Decoder) text(most int) string { return string(d.bytes(most)) }

// sharedText answers the same string for the same bytes.
func (d *Decoder) sharedText(most int) string {
	p := d.bytes(most)
	if s, ok := d.shared[string(p)]; ok {
		return s
	}
	s := string(p)
	if d.shared == nil {
		d.shared = make(map[string]string)
	}
	if len(d.shared) < maxShared {
		d.shared[s] = s
	}
	return s
}

// sharedTerms answers the same slice for the same terms; nobody changes it.
func (d *Decoder) sharedTerms() []byte {
	p := d.bytes(MaxTerms)
	if t, ok := d.terms[string(p)]; ok || len(p) == 0 {
		return t
	}
	t := append([]byte(nil), p...)
	if d.terms == nil {
		d.terms = make(map[string][]byte)
	}
	if len(d.terms) < maxShared {
		d.terms[string(t)] = t
	}
	return t
}
