package linear

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// One user's view: which keys have bought, what became of each, and what the
// limit leaves. There are few operations, so porcupine gets them as they are;
// only the effect of a key is one operation of its own, from the first request
// that may have had it to the first receipt, since nobody knows which of
// several requests it was. The receipts show it.

// account is a user's purchases, a byte each.
type account string

// The bytes.
const (
	notYet   = '.'
	held     = 'h'
	sold     = 's'
	released = 'r'
	lost     = 'x' // it was only pending when an engine lost it
)

func (a account) String() string {
	var parts []string
	for i, c := range []byte(a) {
		parts = append(parts, fmt.Sprintf("purchase %d %s", i+1,
			map[byte]string{notYet: "not made", held: "held", sold: "sold", released: "over", lost: "lost"}[c]))
	}
	return strings.Join(parts, ", ")
}

func (a account) with(i int, c byte) account { return a[:i] + account(c) + a[i+1:] }

// act is one operation of a user's view.
type act struct {
	purchase int  // its number, -1 = a key that never bought
	end      byte // sold, released or lost: an end; held: the purchase; 0 = a reply
	perhaps  bool // it may not have happened at all
	reply    int
}

// passbook is a user's view ready to be searched.
type passbook struct {
	*buyer
	limit     int
	purchases []*purchase
}

// total is what the user has; pending says whether what was never promised,
// and may have been lost, counts.
func (b *passbook) total(a account, pending bool) (n int) {
	for i, c := range []byte(a) {
		if (c == held || c == sold) && (pending || !b.purchases[i].lossy) {
			n += b.purchases[i].quantity
		}
	}
	return n
}

// bought says whether a key has bought something that is not lost.
func (b *passbook) bought(a account, key string) bool {
	for i, c := range []byte(a) {
		if c != notYet && c != lost && b.purchases[i].key == key {
			return true
		}
	}
	return false
}

func (b *passbook) apply(a account, in act) (account, bool) {
	switch in.end {
	case held:
		p := b.purchases[in.purchase]
		fits := b.limit == 0 || p.lossy || b.total(a, false)+p.quantity <= b.limit
		if a[in.purchase] != notYet || !fits {
			return a, in.perhaps
		}
		return a.with(in.purchase, held), true
	case sold, released, lost:
		if a[in.purchase] != held {
			return a, in.perhaps
		}
		return a.with(in.purchase, in.end), true
	}
	is := byte(notYet)
	if in.purchase >= 0 {
		is = a[in.purchase]
	}
	return a, b.fits(a, is, &b.replies[in.reply])
}

// fits says whether a reply is right when its key's purchase is in state is.
func (b *passbook) fits(a account, is byte, r *reply) bool {
	if r.code != "" {
		if b.bought(a, r.key) {
			return false
		}
		switch r.code {
		case codeLimit:
			return b.limit != 0 && b.total(a, true)+r.quantity > b.limit
		case codeSoldOut, codeAllHeld, codeInsufficient: // the limit is looked at before the stock
			return b.limit == 0 || b.total(a, false)+r.quantity <= b.limit
		}
		return true
	}
	if r.id != "" && r.id != r.purchase.id {
		return false
	}
	want := map[string]byte{Pending: held, Held: held, Confirmed: sold, Released: released, Refused: lost}[r.state]
	return is == want || r.state == "" && is != notYet
}

func (b *passbook) describe(in act) string {
	if in.end == 0 {
		r := b.replies[in.reply]
		what := fmt.Sprintf("key %s was told %s", r.key, r.code)
		switch {
		case r.id != "":
			what = fmt.Sprintf("key %s got reservation %s, %s", r.key, r.id, cmp.Or(r.state, "in no state"))
		case r.code == "":
			what = fmt.Sprintf("%s was shown as %s", r.purchase, r.state)
		}
		return fmt.Sprintf("%s between %s and %s", what, at(r.call), at(r.back))
	}
	p := b.purchases[in.purchase]
	return fmt.Sprintf("%s was %s", p, map[byte]string{held: fmt.Sprintf("bought between %s and %s", at(p.from), at(p.by)), sold: "sold", released: "over", lost: "lost"}[in.end])
}

// operations of a user, for porcupine.
func (b *passbook) operations(last int64) (ops []porcupine.Operation) {
	add := func(row int, in act, from, by int64) {
		if by == Forever {
			in.perhaps, by = true, max(from, last)+1
		}
		ops = append(ops, porcupine.Operation{ClientId: row, Input: in, Call: from, Return: by})
	}
	number := map[*purchase]int{}
	for i, p := range b.purchases {
		number[p] = i
		add(0, act{purchase: i, end: held}, p.from, p.by)
		for _, e := range p.ends() {
			in := act{purchase: i, end: map[class]byte{give: released, confirm: sold}[e.class]}
			if e.lost {
				in.end = lost
			}
			add(1, in, e.from, e.by)
		}
	}
	for i, r := range b.replies {
		n, bought := number[r.purchase]
		if !bought {
			n = -1
		}
		add(2, act{purchase: n, reply: i}, r.call, r.back)
	}
	slices.SortStableFunc(ops, func(x, y porcupine.Operation) int { return cmp.Compare(x.Call, y.Call) })
	return ops
}

// checkUsers searches the view of each user who bought, may have, or was told
// that the limit was reached. All others were only told about stock.
func (r *Result) checkUsers(rec *record, o Options) {
	seed := maphash.MakeSeed()
	names := make([]string, 0, len(rec.buyers))
	for name := range rec.buyers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b := &passbook{buyer: rec.buyers[name], limit: rec.perUser}
		for _, p := range b.buyer.purchases {
			if p.from != Forever {
				b.purchases = append(b.purchases, p)
			}
		}
		ops := b.operations(rec.last)
		r.Partitions++
		r.Searched += len(ops)
		found := searchInParts(part[account]{
			start: account(strings.Repeat(string(notYet), len(b.purchases))), timeout: o.Timeout, terse: o.terse,
			segments: 1, slice: func(int, int, account) []porcupine.Operation { return ops },
			apply:    func(a account, in any) (account, bool) { return b.apply(a, in.(act)) },
			hash:     func(s any) uint64 { return maphash.String(seed, string(s.(account))) },
			same:     func(x, y any) bool { return x == y },
			describe: func(in any) string { return b.describe(in.(act)) },
		})
		r.take(found, "user "+name)
	}
}
