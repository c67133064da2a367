package gate

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sluice/internal/stock"
)

// Lists are the black, white and grey lists in memory, made for one question:
// how does the asker of this request stand? They hold up to a million entries
// that come and go while they are asked.
//
// An entry is known by a 64-bit hash of what it lists, with seeds of this process:
// asked about somebody who is not listed, they take him for one of a million who
// are once in 18 trillion times. Why somebody is listed is not here; the store
// tells it.
//
// Entries lie in many small parts, each immutable and sorted by hash, with a
// filter that tells of nearly all who are not in it. Asking takes no lock,
// allocates nothing and mostly goes no further than the filter; a change copies
// the parts that it is in. 24 bytes an entry, and 512 a part.
type Lists struct {
	seeds      [kinds]maphash.Seed
	activities maphash.Seed
	now        atomic.Pointer[listIndex]
	known      atomic.Bool
}

// Standing is what lists say of a request's asker; the greatest counts.
type Standing uint8

const (
	Unlisted Standing = iota
	Grey              // is challenged
	White             // is not challenged
	Black             // is refused
	standings
)

var listNames = [standings]string{"none", "grey", "white", "black"}

// String is the name of the list, or none.
func (s Standing) String() string { return listNames[s] }

// Listable is what lists have entries of.
type Listable uint8

const (
	ListedUser Listable = iota
	ListedIP            // addresses and networks
	ListedPhone
	kinds
)

var kindNames = [kinds]string{"user", "ip", "phone"}

// String is the kind of an entry.
func (k Listable) String() string { return kindNames[k] }

// listIndex is all entries at a time, as far as they have come.
type listIndex struct {
	parts    [listParts]atomic.Pointer[listPart]
	of       [kinds]atomic.Int64 // entries
	networks atomic.Pointer[widths]
}

const (
	partBits  = 12 // of the hash choose a part: about 250 entries each at most
	listParts = 1 << partBits
	// filterBits of the hash choose a bit of a part's filter: of those who are not
	// listed one in sixteen is looked for all the same when lists are full.
	filterBits = 12
)

// listPart is sorted by hash.
type listPart struct {
	hashes []uint64
	places []listPlace
	filter [1 << (filterBits - 6)]uint64 // a bit for each of the next bits of hashes
}

// listPlace is what is known of an entry beside what it lists.
type listPlace struct {
	activity uint64 // a hash, 0: every one
	until    int64  // Unix ms × 4 + standing
}

const forever = math.MaxInt64 >> 2 // of an entry without an end

// listChange is an entry that is put into an index, or taken out of it.
type listChange struct {
	hash    uint64
	place   listPlace
	kind    Listable
	removed bool
}

// NewLists are empty, and not Known.
func NewLists() *Lists {
	l := &Lists{activities: maphash.MakeSeed()}
	for i := range l.seeds {
		l.seeds[i] = maphash.MakeSeed()
	}
	l.now.Store(&listIndex{})
	return l
}

// Known says whether the lists have been read from the store: until then nobody
// is listed.
func (l *Lists) Known() bool { return l.known.Load() }

// Count is how many entries there are here, those included whose time is over
// and that have not been cleared away.
func (l *Lists) Count() (n int) {
	now := l.now.Load()
	for i := range now.of {
		n += int(now.of[i].Load())
	}
	return n
}

// Standing answers how the asker of a request stands: black before white before
// grey, whether it is the user who is listed, the phone, or the address or a
// network around it; for the request's activity or for every one.
func (l *Lists) Standing(now time.Time, f *Facts) Standing {
	is, _ := l.Look(now, f)
	return is
}

// Look is Standing, and what it is by.
func (l *Lists) Look(now time.Time, f *Facts) (is Standing, by Listable) {
	index := l.now.Load()
	var q question
	prepared := false
	for kind := range kinds {
		if index.of[kind].Load() == 0 || !f.has(kind) {
			continue
		}
		if !prepared {
			q, prepared = question{index: index, at: now.UnixMilli(), activity: l.activity(f.Activity)}, true
		}
		var found Standing
		switch kind {
		case ListedUser:
			found = q.standing(maphash.String(l.seeds[kind], f.User))
		case ListedPhone:
			found = q.standing(maphash.String(l.seeds[kind], f.Phone))
		case ListedIP:
			found = q.address(l.seeds[kind], f.IP.Unmap())
		}
		if found > is {
			is, by = found, kind
		}
	}
	return is, by
}

func (f *Facts) has(kind Listable) bool {
	switch kind {
	case ListedUser:
		return f.User != ""
	case ListedPhone:
		return f.Phone != ""
	}
	return f.IP.IsValid()
}

// activity is a hash that is never that of every activity.
func (l *Lists) activity(id string) uint64 {
	if id == "" {
		return 0
	}
	return maphash.String(l.activities, id) | 1
}

// question is what is asked of an index.
type question struct {
	index    *listIndex
	at       int64 // Unix ms
	activity uint64
}

// standing is that of a hash.
func (q *question) standing(hash uint64) (is Standing) {
	part := q.index.parts[hash>>(64-partBits)].Load()
	if part == nil || !part.mayHave(hash) {
		return Unlisted
	}
	for i := part.find(hash); i < len(part.hashes) && part.hashes[i] == hash; i++ {
		p := part.places[i]
		if (p.activity == 0 || p.activity == q.activity) && q.at < p.until>>2 {
			is = max(is, Standing(p.until&3))
		}
	}
	return is
}

// address is the standing of an address: by itself, and by the networks around
// it, of the widths that there are near it.
func (q *question) address(seed maphash.Seed, a netip.Addr) (is Standing) {
	near := q.index.networks.Load()
	if near == nil {
		return Unlisted
	}
	a = a.WithZone("")
	for left := near.around(a); left != 0; left &= left - 1 {
		p, err := a.Prefix(lengthOf(a, bits.TrailingZeros64(left)))
		if err == nil { // always: the widths are those of such addresses
			is = max(is, q.standing(hashNetwork(seed, p)))
		}
	}
	return is
}

// filtered is where the filter has a hash: which word, and which bit.
func filtered(hash uint64) (word, bit uint64) {
	at := hash << partBits >> (64 - filterBits)
	return at >> 6, 1 << (at & 63)
}

func (p *listPart) mayHave(hash uint64) bool {
	word, bit := filtered(hash)
	return p.filter[word]&bit != 0
}

// find answers where a hash is, or would be. Hashes are spread evenly, so it is
// not far from where it would be if they were spread perfectly.
func (p *listPart) find(hash uint64) int {
	n := len(p.hashes)
	guess, _ := bits.Mul64(hash<<partBits, uint64(n))
	i := int(guess)
	for i > 0 && p.hashes[i-1] >= hash {
		i--
	}
	for i < n && p.hashes[i] < hash {
		i++
	}
	return i
}

// change is an entry as it goes into an index. It must be valid.
func (l *Lists) change(e *ListEntry) listChange {
	kind := Listable(slices.Index(kindNames[:], e.Kind))
	c := listChange{kind: kind, removed: e.Removed, place: listPlace{activity: l.activity(e.Activity), until: forever}}
	if e.Until != 0 {
		c.place.until = int64(min(e.Until, forever))
	}
	c.place.until = c.place.until<<2 | int64(slices.Index(listNames[:], e.List))
	if kind == ListedIP {
		network, _ := networkOf(e.Subject)
		c.hash = hashNetwork(l.seeds[kind], network)
	} else {
		c.hash = maphash.String(l.seeds[kind], e.Subject)
	}
	return c
}

// apply makes changes of different entries visible to whoever asks. Only one at
// a time. An index that nobody asks yet is ours, and its parts need not be copied.
func (l *Lists) apply(x *listIndex, entries []ListEntry, ours bool) {
	changes := make([]listChange, len(entries))
	for i := range entries {
		changes[i] = l.change(&entries[i])
		if !entries[i].Removed && changes[i].kind == ListedIP {
			x.widen(entries[i].Subject) // before it can be found
		}
	}
	slices.SortFunc(changes, func(a, b listChange) int { return cmp.Compare(a.hash, b.hash) })
	for len(changes) > 0 {
		which := changes[0].hash >> (64 - partBits)
		part := &listPart{}
		if old := x.parts[which].Load(); old != nil && ours {
			part = old
		} else if old != nil {
			part = old.copied(1)
		}
		for len(changes) > 0 && changes[0].hash>>(64-partBits) == which {
			x.of[changes[0].kind].Add(int64(part.make(&changes[0])))
			changes = changes[1:]
		}
		x.parts[which].Store(part)
	}
}

// copied has room for so many more, and a filter of what is there.
func (p *listPart) copied(more int) *listPart {
	c := &listPart{hashes: make([]uint64, len(p.hashes), len(p.hashes)+more), places: make([]listPlace, len(p.places), len(p.places)+more)}
	copy(c.hashes, p.hashes)
	copy(c.places, p.places)
	for _, hash := range c.hashes {
		word, bit := filtered(hash)
		c.filter[word] |= bit
	}
	return c
}

// make makes a change and answers how many entries there are more. Of the same
// list, subject and activity there is one entry.
func (p *listPart) make(c *listChange) (more int) {
	i := p.find(c.hash)
	for ; i < len(p.hashes) && p.hashes[i] == c.hash; i++ {
		if p.places[i].activity != c.place.activity || p.places[i].until&3 != c.place.until&3 {
			continue
		}
		if !c.removed {
			p.places[i] = c.place
			return 0
		}
		p.hashes, p.places = slices.Delete(p.hashes, i, i+1), slices.Delete(p.places, i, i+1)
		return -1
	}
	if c.removed {
		return 0
	}
	p.hashes, p.places = slices.Insert(p.hashes, i, c.hash), slices.Insert(p.places, i, c.place)
	word, bit := filtered(c.hash)
	p.filter[word] |= bit
	return 1
}

// publish puts an index that is complete in place of the one before, with no
// more memory than it needs.
func (l *Lists) publish(x *listIndex) {
	for i := range x.parts {
		if p := x.parts[i].Load(); p != nil {
			x.parts[i].Store(p.copied(0))
		}
	}
	l.now.Store(x)
	l.known.Store(true)
}

// ended says whether an entry's time is over.
func (e *ListEntry) ended(now stock.Millis) bool { return e.Until != 0 && e.Until <= now }
