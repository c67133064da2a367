package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/stock"
)

// listShelf stands for the store at the listbook's own interface, so that it can be
// away and forget; the real one is behind it in the console's tests.
type listShelf struct {
	rows      map[ListEntry]ListEntry
	newest    int64
	forgotten int64
	page      int // at most so many changes a page; 0: as asked
	away      error
	reads     int
}

func (s *listShelf) ListChanges(_ context.Context, after int64, limit int) (c ListChanges, err error) {
	s.reads++
	if s.page > 0 {
		limit = min(limit, s.page)
	}
	for _, e := range s.rows {
		if e.Revision > after {
			c.Entries = append(c.Entries, e)
		}
	}
	slices.SortFunc(c.Entries, func(a, b ListEntry) int { return cmp.Compare(a.Revision, b.Revision) })
	c.Entries = c.Entries[:min(len(c.Entries), limit)]
	c.Newest, c.Forgotten = s.newest, s.forgotten
	return c, s.away
}

func (s *listShelf) ListEntries(_ context.Context, q ListQuery, limit int) (page []ListEntry, err error) {
	for _, e := range s.rows {
		if !e.Removed && (q.List == "" || q.List == e.List) && (q.Kind == "" || q.Kind == e.Kind) && (q.Before == 0 || e.Revision < q.Before) &&
			(q.Activities == nil || slices.Contains(q.Activities, e.Activity)) && (q.Subjects == nil || slices.Contains(q.Subjects, e.Subject)) {
			page = append(page, e)
		}
	}
	slices.SortFunc(page, func(a, b ListEntry) int { return cmp.Compare(b.Revision, a.Revision) })
	return page[:min(len(page), limit)], s.away
}

func (s *listShelf) ChangeLists(_ context.Context, subjects []string, change func([]ListEntry, int64) ([]ListEntry, error)) ([]ListEntry, int64, error) {
	var have []ListEntry
	listed := int64(0)
	for _, e := range s.rows {
		if slices.Contains(subjects, e.Subject) {
			have = append(have, e)
		}
		if !e.Removed {
			listed++
		}
	}
	rows, err := change(have, listed)
	if err = errors.Join(err, s.away); err != nil {
		return nil, 0, err
	}
	for i := range rows {
		s.newest++
		rows[i].Revision = s.newest
		s.rows[rows[i].key()] = rows[i]
	}
	return rows, s.newest, nil
}

// forget drops what was removed, as a store does a day later.
func (s *listShelf) forget() {
	for key, e := range s.rows {
		if e.Removed {
			s.forgotten = max(s.forgotten, e.Revision)
			delete(s.rows, key)
		}
	}
}

func newShelf() *listShelf { return &listShelf{rows: map[ListEntry]ListEntry{}} }

func newBook(s *listShelf, now *time.Time) *Listbook {
	return NewListbook(s, NewLists(), func() time.Time { return *now })
}

// follow takes steps until there is no more to take up.
func follow(t rapid.TB, b *Listbook) {
	t.Helper()
	for range 1000 {
		worked, err := b.Step(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !worked {
			return
		}
	}
	t.Fatal("1000 steps, and there is more")
}

// naive goes through all entries.
func naive(s *listShelf, now time.Time, f *Facts) (is Standing) {
	for _, e := range s.rows {
		if e.Removed || e.Activity != "" && e.Activity != f.Activity || e.Until != 0 && now.UnixMilli() >= int64(e.Until) {
			continue
		}
		hit := e.Kind == "user" && e.Subject == f.User || e.Kind == "phone" && e.Subject == f.Phone
		if e.Kind == "ip" && f.IP.IsValid() {
			p, err := netip.ParsePrefix(e.Subject)
			if err != nil {
				a := netip.MustParseAddr(e.Subject)
				p = netip.PrefixFrom(a, a.BitLen())
			}
			hit = p.Contains(f.IP.Unmap())
		}
		if hit {
			is = max(is, Standing(slices.Index(listNames[:], e.List)))
		}
	}
	return is
}

var (
	someUsers = []string{"ann", "bob", "cho", "ann2"}
	somePhone = []string{"+861", "+862", "ann"}
	someIPs   = []string{"10.1.2.3", "10.1.2.4", "10.1.77.1", "10.9.0.1", "192.0.2.1", "2001:db8:1:2::7", "2001:db8:1:2::8", "2001:db8:1:3::1", "2001:dff::1", "fe80::1"}
	someNets  = append([]string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.2/31", "192.0.2.1/32", "10.0.0.0/13", "2001:db8:1:2::/64",
		"2001:db8::/32", "2001:d00::/24", "2001::/16", "2001:db8:1::/48", "::ffff:10.1.2.3"}, someIPs...)
	someWhere = []string{"", "drop", "other"}
)

func aSubject(t *rapid.T) (kind, subject string) {
	kind = rapid.SampledFrom(kindNames[:]).Draw(t, "kind")
	of := map[string][]string{"user": someUsers, "phone": somePhone, "ip": someNets}[kind]
	return kind, rapid.SampledFrom(of).Draw(t, "subject")
}

// Whatever is listed, taken off, ends, is forgotten and read again in pages of any
// size: everybody stands as a look through all entries says, here, where it was
// changed, and there, where changes are followed.
func TestStandingIsThatOfAllEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		store := newShelf()
		here, there := newBook(store, &now), newBook(store, &now)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			store.page = rapid.IntRange(0, 4).Draw(t, "page")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				store.forget()
			case 1:
				now = now.Add(time.Duration(rapid.IntRange(1, 3).Draw(t, "seconds")) * time.Second)
			case 2:
				if _, err := there.Step(context.Background()); err != nil {
					t.Fatal(err)
				}
			case 3, 4, 5:
				e := ListEntry{List: rapid.SampledFrom(listNames[1:]).Draw(t, "list"), Activity: rapid.SampledFrom(someWhere).Draw(t, "activity")}
				e.Kind, e.Subject = aSubject(t)
				if _, err := here.Remove(context.Background(), []ListEntry{e}, "ops"); err != nil {
					t.Fatal(err)
				}
			default:
				e := ListEntry{List: rapid.SampledFrom(listNames[1:]).Draw(t, "list"), Activity: rapid.SampledFrom(someWhere).Draw(t, "activity")}
				e.Kind, e.Subject = aSubject(t)
				if seconds := rapid.IntRange(0, 3).Draw(t, "for"); seconds > 0 {
					e.Until = stock.MillisOf(now.Add(time.Duration(seconds) * time.Second))
				}
				if _, err := here.Put(context.Background(), []ListEntry{e}, "ops"); err != nil {
					t.Fatal(err)
				}
			}
			follow(t, here)
			compare(t, "here", here.Lists, store, now)
		}
		follow(t, there)
		compare(t, "there", there.Lists, store, now)
	})
}

func compare(t *rapid.T, where string, l *Lists, s *listShelf, now time.Time) {
	t.Helper()
	check := func(f Facts) {
		t.Helper()
		is, by := l.Look(now, &f)
		if want := naive(s, now, &f); is != want {
			t.Fatalf("%s: %+v stands %s by %s, want %s", where, f, is, by, want)
		}
	}
	for _, activity := range someWhere {
		for _, ip := range someIPs {
			check(Facts{Activity: activity, IP: netip.MustParseAddr(ip)})
		}
		for _, user := range someUsers {
			for _, phone := range somePhone {
				check(Facts{Activity: activity, User: user, Phone: phone, IP: netip.MustParseAddr("::ffff:10.1.2.3")})
			}
		}
	}
	listed := 0
	for _, e := range s.rows {
		if !e.Removed {
			listed++
		}
	}
	if l.Count() != listed {
		t.Fatalf("%s: %d entries, want %d", where, l.Count(), listed)
	}
}

// Who is listed by what, and which list counts.
func TestStanding(t *testing.T) {
	now := noon
	b := newBook(newShelf(), &now)
	if _, err := b.Put(t.Context(), []ListEntry{
		{List: "grey", Kind: "ip", Subject: "10.0.0.0/8"}, {List: "white", Kind: "user", Subject: "ann"},
		{List: "black", Kind: "phone", Subject: "+861", Activity: "drop", Until: stock.MillisOf(now) + 1000},
		{List: "black", Kind: "ip", Subject: "10.0.0.0/16"}, {List: "grey", Kind: "ip", Subject: "2001:db8::/32"}, {List: "black", Kind: "ip", Subject: "2001:db8::/48"},
	}, "ops"); err != nil {
		t.Fatal(err)
	}
	f := func(activity, user, phone, ip string, want Standing, wantBy Listable) {
		t.Helper()
		facts := Facts{Activity: activity, User: user, Phone: phone}
		facts.IP, _ = netip.ParseAddr(ip)
		if is, by := b.Lists.Look(now, &facts); is != want || is != Unlisted && by != wantBy {
			t.Errorf("%s %s %s %s: %s by %s, want %s by %s", activity, user, phone, ip, is, by, want, wantBy)
		}
	}
	f("drop", "bob", "", "", Unlisted, 0)
	f("drop", "", "", "", Unlisted, 0)
	f("drop", "bob", "", "10.1.1.1", Grey, ListedIP)
	f("drop", "ann", "", "10.1.1.1", White, ListedUser)
	f("drop", "ann", "+861", "10.1.1.1", Black, ListedPhone)
	f("other", "ann", "+861", "11.1.1.1", White, ListedUser)
	f("other", "+861", "", "11.1.1.1", Unlisted, 0)
	f("drop", "", "", "10.0.1.1", Black, ListedIP)
	f("drop", "", "", "2001:db8:0:1::1", Black, ListedIP)
	f("drop", "", "", "2001:db8:1::1", Grey, ListedIP)
	now = now.Add(time.Second)
	f("drop", "", "+861", "", Unlisted, 0)
}

func TestListedNetworks(t *testing.T) {
	f := func(text, want, fault string) {
		t.Helper()
		p, err := networkOf(text)
		switch {
		case fault != "":
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v, want %q", text, err, fault)
			}
		case err != nil || canonical(p) != want:
			t.Errorf("%s: %s, %v, want %s", text, canonical(p), err, want)
		}
	}
	f("198.51.100.7", "198.51.100.7", "")
	f("198.51.100.7/32", "198.51.100.7", "")
	f("::ffff:198.51.100.7", "198.51.100.7", "")
	f("198.51.100.0/24", "198.51.100.0/24", "")
	f("2001:DB8::0/32", "2001:db8::/32", "")
	f("2001:db8::1/128", "2001:db8::1", "")
	f("198.51.100.7/24", "", "the network is 198.51.100.0/24")
	f("0.0.0.0/0", "", "too wide")
	f("::/0", "", "too wide")
	f("2001:db8::/96", "", "narrower")
	f("fe80::1%eth0", "", "zone")
	f("::ffff:10.0.0.0/104", "", "IPv4")
	f("here", "", "neither")

	for _, ip := range someIPs {
		a := netip.MustParseAddr(ip)
		around := networksAround(a)
		if len(around) > 50 || around[0] != ip {
			t.Errorf("%d networks around %s: %s", len(around), ip, around)
		}
		for _, text := range around {
			p, err := networkOf(text)
			if err != nil || canonical(p) != text || !p.Contains(a) || lengthOf(a, 0) < p.Bits() && p.Bits() != 128 {
				t.Errorf("%s around %s: %v", text, ip, err)
			}
			w := &widths{}
			w.note(p)
			if w.around(a) != bitOf(p) {
				t.Errorf("%s is not noted near %s", text, ip)
			}
		}
	}
}

// What Put and Remove make of what is there.
func TestListbook(t *testing.T) {
	now := noon
	store := newShelf()
	b := newBook(store, &now)
	ctx := t.Context()
	bob := ListEntry{List: "black", Kind: "user", Subject: "bob", Reason: "bot"}
	put := func(changed int, want error, entries ...ListEntry) {
		t.Helper()
		if saved, err := b.Put(ctx, entries, "ops"); !errors.Is(err, want) || saved.Changed != changed {
			t.Errorf("put: %+v, %v; want %d, %v", saved, err, changed, want)
		}
	}
	remove := func(changed int, want error, entries ...ListEntry) {
		t.Helper()
		if saved, err := b.Remove(ctx, entries, "pat"); !errors.Is(err, want) || saved.Changed != changed {
			t.Errorf("remove: %+v, %v; want %d, %v", saved, err, changed, want)
		}
	}
	find := func(want ...ListEntry) {
		t.Helper()
		found, err := b.Find(ctx, &Facts{User: "bob", Activity: "drop"})
		if err != nil || !slices.Equal(found.Entries, want) {
			t.Errorf("found %+v, %v; want %+v", found, err, want)
		}
	}
	first := stock.MillisOf(now)
	put(1, nil, bob)
	put(0, nil, bob) // the same again
	is := bob
	is.By, is.Since, is.Revision = "ops", first, 1
	find(is)
	now = now.Add(time.Minute)
	bob.Reason = "bot, seen twice"
	put(1, nil, bob)
	is.Reason, is.Revision = bob.Reason, 2
	find(is)
	put(0, ErrListChanged, ListEntry{List: "black", Kind: "user", Subject: "eve"}, ListEntry{List: "black", Kind: "user", Subject: "bob", Revision: 1})
	put(0, ErrListChanged, ListEntry{List: "black", Kind: "user", Subject: "eve", Revision: 1})
	remove(0, ErrListChanged, ListEntry{List: "black", Kind: "user", Subject: "bob", Revision: 1})
	white := ListEntry{List: "white", Kind: "user", Subject: "bob", Until: stock.MillisOf(now) + 5000}
	put(1, nil, white)
	white.By, white.Since, white.Revision = "ops", stock.MillisOf(now), 3
	find(is, white)
	remove(1, nil, ListEntry{List: "black", Kind: "user", Subject: "bob", Revision: 2}, ListEntry{List: "grey", Kind: "user", Subject: "bob"})
	remove(0, nil, ListEntry{List: "black", Kind: "user", Subject: "bob"})
	remove(0, ErrListChanged, ListEntry{List: "black", Kind: "user", Subject: "bob", Revision: 4})
	find(white)
	now = now.Add(5 * time.Second)
	find() // over
	again := bob
	again.List, again.Reason = "white", ""
	put(1, nil, again) // begins anew
	if e := store.rows[again.key()]; e.Since != stock.MillisOf(now) || e.Until != 0 {
		t.Errorf("listed again: %+v", e)
	}
	put(0, ErrRules)
	put(0, ErrRules, bob, bob)
	put(0, ErrRules, make([]ListEntry, MaxListChanges+1)...)
	store.away = errors.New("away")
	put(0, store.away, bob)
	if _, err := b.Step(ctx); !errors.Is(err, store.away) {
		t.Errorf("a step while the store is away: %v", err)
	}
}

func TestListEntryFaults(t *testing.T) {
	now := noon
	b := newBook(newShelf(), &now)
	f := func(e ListEntry, field string) {
		t.Helper()
		_, err := b.Put(t.Context(), []ListEntry{{List: "grey", Kind: "user", Subject: "ok"}, e}, "ops")
		var bad *RuleError
		if !errors.As(err, &bad) || bad.Field != "entries[1]."+field {
			t.Errorf("%+v: %v, want %s", e, err, field)
		}
	}
	f(ListEntry{List: "none", Kind: "user", Subject: "a"}, "list")
	f(ListEntry{List: "black", Kind: "card", Subject: "a"}, "kind")
	f(ListEntry{List: "black", Kind: "user", Subject: ""}, "subject")
	f(ListEntry{List: "black", Kind: "user", Subject: strings.Repeat("a", 65)}, "subject")
	f(ListEntry{List: "black", Kind: "phone", Subject: "+86 138"}, "subject")
	f(ListEntry{List: "black", Kind: "phone", Subject: strings.Repeat("1", 33)}, "subject")
	f(ListEntry{List: "black", Kind: "ip", Subject: "10.0.0.0/7"}, "subject")
	f(ListEntry{List: "black", Kind: "user", Subject: "a", Activity: "b c"}, "activity")
	f(ListEntry{List: "black", Kind: "user", Subject: "a", Reason: strings.Repeat("双", 201)}, "reason")
	f(ListEntry{List: "black", Kind: "user", Subject: "a", Until: stock.MillisOf(now)}, "until")
	if b.Lists.Count() != 0 {
		t.Error("half of it was saved")
	}
}

// A full list takes no more, but changes and gives up what it has.
func TestListsAreBounded(t *testing.T) {
	now := noon
	store := &fullShelf{listShelf: newShelf(), more: MaxListed - 1}
	b := NewListbook(store, NewLists(), func() time.Time { return now })
	e := func(subject, reason string) ListEntry {
		return ListEntry{List: "black", Kind: "user", Subject: subject, Reason: reason}
	}
	f := func(want error, entries ...ListEntry) {
		t.Helper()
		if _, err := b.Put(t.Context(), entries, "ops"); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	f(ErrListsFull, e("a", ""), e("b", ""))
	f(nil, e("a", ""))
	f(ErrListsFull, e("b", ""))
	f(nil, e("a", "changed"))
	if _, err := b.Remove(t.Context(), []ListEntry{e("a", "")}, "ops"); err != nil {
		t.Error(err)
	}
	f(nil, e("b", ""))
}

// fullShelf says that there are more entries than it has.
type fullShelf struct {
	*listShelf
	more int64
}

func (s *fullShelf) ChangeLists(ctx context.Context, subjects []string, change func([]ListEntry, int64) ([]ListEntry, error)) ([]ListEntry, int64, error) {
	return s.listShelf.ChangeLists(ctx, subjects, func(have []ListEntry, listed int64) ([]ListEntry, error) { return change(have, listed+s.more) })
}

// Whoever has missed removals, or is ahead of a store put back from a backup,
// reads everything again, and decides by what he has until that is done.
func TestListsAreReadAgain(t *testing.T) {
	now := noon
	store := newShelf()
	here, there := newBook(store, &now), newBook(store, &now)
	if there.Lists.Known() {
		t.Error("known before they were read")
	}
	var all []ListEntry
	for i := range 20 {
		all = append(all, ListEntry{List: "black", Kind: "user", Subject: fmt.Sprint("u", i)})
	}
	if _, err := here.Put(t.Context(), all, "ops"); err != nil {
		t.Fatal(err)
	}
	follow(t, there)
	if !there.Lists.Known() || there.Lists.Count() != 20 {
		t.Fatalf("known %v, %d entries", there.Lists.Known(), there.Lists.Count())
	}
	if _, err := here.Remove(t.Context(), all[:5], "ops"); err != nil {
		t.Fatal(err)
	}
	store.forget()
	store.page = 4
	for range 4 { // one that finds out, and three of four pages
		if worked, err := there.Step(t.Context()); !worked || err != nil {
			t.Fatal(worked, err)
		}
		if is := there.Lists.Standing(now, &Facts{User: "u19"}); is != Black || there.Lists.Count() != 20 {
			t.Fatalf("while they are read again: %s, %d entries", is, there.Lists.Count())
		}
	}
	follow(t, there)
	if there.Lists.Count() != 15 {
		t.Errorf("%d entries, want 15", there.Lists.Count())
	}
	reads := store.reads
	follow(t, there)
	if store.reads != reads+1 {
		t.Errorf("%d reads where nothing is new", store.reads-reads)
	}
	*store = *newShelf() // of before anybody was listed
	follow(t, there)
	if there.Lists.Count() != 0 {
		t.Errorf("%d entries of an empty store", there.Lists.Count())
	}
}

// Standing is asked while entries come and go: who is listed all the time always
// stands so, and who never is never does.
func TestListsAreAskedWhileTheyChange(t *testing.T) {
	now := noon
	b := newBook(newShelf(), &now)
	entry := func(user string) ListEntry { return ListEntry{List: "black", Kind: "user", Subject: user} }
	change := func(how func(context.Context, []ListEntry, string) (ListsSaved, error), users ...ListEntry) {
		t.Helper()
		if _, err := how(t.Context(), users, "ops"); err != nil {
			t.Fatal(err)
		}
	}
	const people = 3 * MaxListChanges
	for i := range people / 500 {
		var fixed []ListEntry
		for j := range 500 {
			fixed = append(fixed, entry(fmt.Sprint("fixed", i*500+j)))
		}
		change(b.Put, fixed...)
	}
	type seen struct{ part, copied *listPart }
	var before []seen // what somebody may be looking at
	for i := range b.Lists.now.Load().parts {
		if p := b.Lists.now.Load().parts[i].Load(); p != nil {
			before = append(before, seen{p, p.copied(0)})
		}
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for i := 0; !stop.Load(); i++ {
				listed := b.Lists.Standing(noon, &Facts{User: fmt.Sprint("fixed", i%people)})
				never := b.Lists.Standing(noon, &Facts{User: fmt.Sprint("never", i%people)})
				if listed != Black || never != Unlisted {
					t.Errorf("%s and %s", listed, never)
					return
				}
			}
		})
	}
	for i := range 100 {
		var come, gone []ListEntry
		for j := range 100 {
			come, gone = append(come, entry(fmt.Sprint("some", (i*7+j)%300))), append(gone, entry(fmt.Sprint("some", (i*11+j)%300)))
		}
		change(b.Put, come...)
		change(b.Remove, gone...)
	}
	stop.Store(true)
	all.Wait()
	for _, s := range before {
		if !slices.Equal(s.part.hashes, s.copied.hashes) || !slices.Equal(s.part.places, s.copied.places) {
			t.Fatal("a part was changed while it could be looked at")
		}
	}
}

// manyEntries are users, addresses, networks and phones, half of them users.
func manyEntries(n int) []ListEntry {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]ListEntry, n)
	for i := range all {
		e := ListEntry{List: "black", Kind: "user", Subject: fmt.Sprintf("user-%09d", i), Revision: int64(i + 1)}
		switch i % 8 {
		case 1, 3:
			e.Kind, e.Subject = "ip", netip.AddrFrom4([4]byte{byte(r.UintN(223)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}).String()
		case 5:
			p, _ := netip.AddrFrom4([4]byte{byte(r.UintN(223)), byte(r.Uint32()), byte(r.Uint32()), 0}).Prefix(18 + r.IntN(11))
			e.Kind, e.Subject = "ip", canonical(p)
		case 7:
			e.Kind, e.Subject = "phone", fmt.Sprintf("+86138%08d", i)
		}
		all[i] = e
	}
	return all
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A million entries: what they take, how long they take to come, and what a
// question and a change cost.
func BenchmarkLists(b *testing.B) {
	entries := manyEntries(MaxListed)
	l := NewLists()
	before := heap()
	started := time.Now()
	x := &listIndex{}
	for page := range slices.Chunk(entries, listPage) {
		l.apply(x, page, true)
	}
	l.publish(x)
	took := time.Since(started)
	size := heap() - before
	b.Logf("%d entries: %.1f MB, %.1f bytes each, ready in %s", l.Count(), float64(size)/1e6, float64(size)/float64(l.Count()), took.Round(time.Millisecond))
	runtime.KeepAlive(entries)

	facts := make([]Facts, 1<<12)
	r := rand.New(rand.NewPCG(3, 4))
	fill := func(user, phone, ip bool, listed bool) {
		for i := range facts {
			facts[i] = Facts{Activity: "drop"}
			if user {
				facts[i].User = fmt.Sprintf("buyer-%09d", r.IntN(1<<30))
				if listed {
					facts[i].User = entries[r.IntN(len(entries)/8)*8].Subject
				}
			}
			if phone {
				facts[i].Phone = fmt.Sprintf("+86139%08d", r.IntN(1<<26))
			}
			if ip {
				facts[i].IP = netip.AddrFrom4([4]byte{byte(r.UintN(223)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
			}
		}
	}
	ask := func(b *testing.B) {
		b.ReportAllocs()
		i, found := 0, 0
		for b.Loop() {
			if is := l.Standing(noon, &facts[i%len(facts)]); is != Unlisted {
				found++
			}
			i++
		}
		b.ReportMetric(float64(found)/float64(i), "listed/op")
	}
	for _, c := range []struct {
		name                    string
		user, phone, ip, listed bool
	}{{"user", true, false, false, false}, {"listed user", true, false, false, true}, {"user and phone", true, true, false, false}, {"address", false, false, true, false}, {"all", true, true, true, false}} {
		fill(c.user, c.phone, c.ip, c.listed)
		b.Run(c.name, ask)
	}
	b.Run("change of one", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l.apply(l.now.Load(), entries[i%len(entries):][:1], false)
		}
	})
	b.Run("nothing listed", func(b *testing.B) { l = NewLists(); ask(b) })
}
