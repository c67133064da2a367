package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/internal/stock"
)

// ListEntry is one entry of a list: that somebody is on it. Of the same list,
// kind, subject and activity there is one.
type ListEntry struct {
	List     string // black, white or grey
	Kind     string // user, ip or phone
	Subject  string // a user id; an address or network; a phone number as tokens claim it
	Activity string // "": every one
	Reason   string // up to 200 characters
	By       string // the operator who changed it last
	Since    stock.Millis
	Until    stock.Millis // 0: until it is removed
	Revision int64        // of its last change: of all changes, each has the next
	Removed  bool         // only followers hear of it
}

// Bounds of lists.
const (
	MaxListed      = 1_000_000 // entries of all lists
	MaxListChanges = 1000      // entries of one call
	listPage       = 5000      // changes that are read at once
	maxReason      = 200       // characters
)

var (
	// ErrListChanged: an entry is not as it was when it was read.
	ErrListChanged = errors.New("the entry has been changed since")
	// ErrListsFull: the lists have as many entries as they may.
	ErrListsFull = errors.New("the lists are full")
)

// ListChanges are the entries that have changed after a revision, each once, as
// it is now, in the order of their revisions.
type ListChanges struct {
	Entries []ListEntry
	Newest  int64 // revision of all
	// Forgotten is the greatest revision of an entry that was removed and is no
	// longer among the changes: who stands before it has missed that.
	Forgotten int64
}

// ListQuery is which entries are asked for. Empty fields leave all.
type ListQuery struct {
	List, Kind string
	Activities []string // any of these; "" is those for every one
	Subjects   []string // any of these
	Before     int64    // revisions below this one; 0: all
}

// listStore keeps entries for good.
type listStore interface {
	// ListChanges are at most limit entries with revisions > after, those below
	// first. Forgotten is not older than they are.
	ListChanges(ctx context.Context, after int64, limit int) (ListChanges, error)
	// ListEntries are at most limit entries that are not removed, newest revision first.
	ListEntries(ctx context.Context, q ListQuery, limit int) ([]ListEntry, error)
	// ChangeLists calls change with all entries of the subjects, removed ones too,
	// and the number of all that are not removed; saves what it answers in place of
	// what was there, with the next revisions; and answers that, and the newest
	// revision. Nobody else changes lists meanwhile. change may be called again.
	ChangeLists(ctx context.Context, subjects []string, change func(have []ListEntry, listed int64) ([]ListEntry, error)) (saved []ListEntry, newest int64, err error)
}

// Listbook keeps Lists on the newest entries, and is where they are changed. Of a
// fleet each process has one, over the same store; it is safe for concurrent use.
type Listbook struct {
	Lists *Lists // what decides by the entries
	store listStore
	now   func() time.Time

	mu     sync.Mutex // from asking the store until the answer is in force
	at     int64      // the revision that has come here
	before int64      // Forgotten when the reading began
	next   *listIndex // that is being read, in place of the lists; nil: they are followed
}

// NewListbook has empty lists until its Steps have read them: see Lists.Known.
func NewListbook(s listStore, l *Lists, now func() time.Time) *Listbook {
	return &Listbook{Lists: l, store: s, now: now, next: &listIndex{}}
}

// Step takes up a page of changes, of this process and others; worked says that
// there may be more. While the store is away the last known lists stay. Whoever
// has missed removals reads all lists again, and those he has stay meanwhile.
func (b *Listbook) Step(ctx context.Context) (worked bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.step(ctx)
}

func (b *Listbook) step(ctx context.Context) (worked bool, err error) {
	page, err := b.store.ListChanges(ctx, b.at, listPage)
	if err != nil {
		return false, fmt.Errorf("lists: %w", err)
	}
	if b.at == 0 {
		b.before = page.Forgotten // of what has been forgotten before nothing is here
	}
	// Newer than the store is who followed one that was put back from a backup.
	if page.Newest < b.at || page.Forgotten > b.at && page.Forgotten > b.before {
		b.next, b.at = &listIndex{}, 0
		return true, nil
	}
	into := b.next
	if into == nil {
		into = b.Lists.now.Load()
	}
	b.Lists.apply(into, page.Entries, b.next != nil)
	if n := len(page.Entries); n > 0 {
		b.at = page.Entries[n-1].Revision
	}
	if more := b.at < page.Newest && len(page.Entries) > 0; more || b.next == nil {
		return more, nil
	}
	b.Lists.publish(b.next)
	b.next = nil
	return false, nil
}

// ListsSaved is what a change has come to.
type ListsSaved struct {
	Revision int64 // the newest
	Changed  int   // entries that are new, other than before, or removed
}

// Put lists entries; those that are there get the new reason and end. It uses
// List, Kind, Subject, Activity, Reason and Until, and, if it is not 0, Revision:
// that the entry must have had. Errors are *RuleError, ErrListChanged and ErrListsFull,
// after which nothing has changed, and the store's.
func (b *Listbook) Put(ctx context.Context, entries []ListEntry, by string) (ListsSaved, error) {
	now := stock.MillisOf(b.now())
	entries = slices.Clone(entries)
	for i := range entries {
		e := &entries[i]
		if field, why := e.fault(now); why != "" {
			return ListsSaved{}, &RuleError{fmt.Sprintf("entries[%d].%s", i, field), why}
		}
	}
	return b.change(ctx, entries, func(wanted, have *ListEntry) (ListEntry, bool) {
		e := *wanted
		e.By, e.Since = by, now
		if have == nil || have.Removed || have.ended(now) {
			return e, true
		}
		e.Since = have.Since
		return e, e.Reason != have.Reason || e.Until != have.Until
	})
}

// Remove takes entries off their lists, those that are there. It uses List, Kind,
// Subject and Activity, and Revision as Put does. Errors are as Put's.
func (b *Listbook) Remove(ctx context.Context, entries []ListEntry, by string) (ListsSaved, error) {
	now := stock.MillisOf(b.now())
	entries = slices.Clone(entries)
	for i := range entries {
		e := &entries[i]
		e.Reason, e.Until = "", 0
		if field, why := e.fault(now); why != "" {
			return ListsSaved{}, &RuleError{fmt.Sprintf("entries[%d].%s", i, field), why}
		}
	}
	return b.change(ctx, entries, func(_, have *ListEntry) (ListEntry, bool) {
		if have == nil || have.Removed {
			return ListEntry{}, false
		}
		e := *have
		e.By, e.Since, e.Removed = by, now, true
		return e, true
	})
}

// change saves what decide makes of each entry that is wanted and the one that
// is there, if it changes anything.
func (b *Listbook) change(ctx context.Context, wanted []ListEntry, decide func(wanted, have *ListEntry) (ListEntry, bool)) (ListsSaved, error) {
	subjects, err := subjectsOf(wanted)
	if err != nil {
		return ListsSaved{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	saved, newest, err := b.store.ChangeLists(ctx, subjects, func(have []ListEntry, listed int64) (rows []ListEntry, err error) {
		there := map[ListEntry]*ListEntry{}
		for i := range have {
			there[have[i].key()] = &have[i]
		}
		more := int64(0)
		for i := range wanted {
			old := there[wanted[i].key()]
			if want := wanted[i].Revision; want != 0 && (old == nil || old.Removed || old.Revision != want) {
				return nil, fmt.Errorf("%w: entries[%d]", ErrListChanged, i)
			}
			row, changes := decide(&wanted[i], old)
			if !changes {
				continue
			}
			if old == nil || old.Removed {
				more++
			}
			rows = append(rows, row)
		}
		if more > 0 && listed+more > MaxListed {
			return nil, fmt.Errorf("%w: %d entries, %d at most", ErrListsFull, listed, MaxListed)
		}
		return rows, nil
	})
	if err != nil {
		return ListsSaved{}, err
	}
	// It is saved: if it cannot be taken up now, the next Step does that.
	_, _ = b.step(ctx)
	return ListsSaved{Revision: newest, Changed: len(saved)}, nil
}

// key is what there is one entry of.
func (e *ListEntry) key() ListEntry {
	return ListEntry{List: e.List, Kind: e.Kind, Subject: e.Subject, Activity: e.Activity}
}

// subjectsOf are the subjects of entries, each once.
func subjectsOf(entries []ListEntry) (subjects []string, err error) {
	if len(entries) < 1 || len(entries) > MaxListChanges {
		return nil, &RuleError{"entries", fmt.Sprintf("%d entries; 1 to %d in one call", len(entries), MaxListChanges)}
	}
	seen := map[ListEntry]bool{}
	for i := range entries {
		if seen[entries[i].key()] {
			return nil, &RuleError{fmt.Sprintf("entries[%d]", i), "stands twice in one call"}
		}
		seen[entries[i].key()] = true
		subjects = append(subjects, entries[i].Subject)
	}
	slices.Sort(subjects)
	return slices.Compact(subjects), nil
}

// fault answers the field of an entry that is wrong and why, or nothing, and
// writes an address as all of them are written.
func (e *ListEntry) fault(now stock.Millis) (field, why string) {
	switch {
	case e.List != Black.String() && e.List != White.String() && e.List != Grey.String():
		return "list", fmt.Sprintf("%q is none of black, white, grey", e.List)
	case !slices.Contains(kindNames[:], e.Kind):
		return "kind", fmt.Sprintf("%q is none of %s", e.Kind, strings.Join(kindNames[:], ", "))
	case e.Kind == ListedUser.String() && !validUser(e.Subject):
		return "subject", fmt.Sprintf("a user id is 1 to %d printable ASCII characters without spaces", maxUser)
	case e.Kind == ListedPhone.String() && (e.Subject == "" || len(e.Subject) > maxPhone || !printable(e.Subject)):
		return "subject", fmt.Sprintf("a phone number is 1 to %d printable characters without spaces, as tokens claim it", maxPhone)
	case len(e.Activity) > stock.MaxID || !printable(e.Activity):
		return "activity", "must be the id of an activity"
	case utf8.RuneCountInString(e.Reason) > maxReason || !utf8.ValidString(e.Reason):
		return "reason", fmt.Sprintf("%d characters at most", maxReason)
	case e.Until < 0 || e.ended(now):
		return "until", "has passed"
	case e.Kind != ListedIP.String():
		return "", ""
	}
	p, err := networkOf(e.Subject)
	if err != nil {
		return "subject", err.Error()
	}
	e.Subject = canonical(p)
	return "", ""
}

// Entries pages through entries, newest change first; the next page is before
// the last one's revision. limit is 1..10,000.
func (b *Listbook) Entries(ctx context.Context, q ListQuery, limit int) ([]ListEntry, error) {
	return b.store.ListEntries(ctx, q, limit)
}

// Listed is how somebody stands, and every entry that has a say in it.
type Listed struct {
	Standing Standing
	Entries  []ListEntry // those that concern the activity and have not ended, strongest first
}

// Find answers what the store has of the asker of such a request: the user, the
// phone, the address and all networks around it. It may be a moment ahead of
// what Lists decide by.
func (b *Listbook) Find(ctx context.Context, f *Facts) (Listed, error) {
	now := stock.MillisOf(b.now())
	var found Listed
	ask := func(kind Listable, subjects ...string) error {
		// At most 50 networks, in three lists, twice: that is no page.
		have, err := b.store.ListEntries(ctx, ListQuery{Kind: kind.String(), Subjects: subjects, Activities: []string{"", f.Activity}}, MaxListChanges)
		for _, e := range have {
			if !e.ended(now) {
				found.Entries = append(found.Entries, e)
			}
		}
		return err
	}
	var errs []error
	if f.User != "" {
		errs = append(errs, ask(ListedUser, f.User))
	}
	if f.Phone != "" {
		errs = append(errs, ask(ListedPhone, f.Phone))
	}
	if f.IP.IsValid() {
		errs = append(errs, ask(ListedIP, networksAround(f.IP)...))
	}
	strength := func(e ListEntry) int { return slices.Index(listNames[:], e.List) }
	slices.SortStableFunc(found.Entries, func(x, y ListEntry) int { return strength(y) - strength(x) })
	if len(found.Entries) > 0 {
		found.Standing = Standing(strength(found.Entries[0]))
	}
	return found, errors.Join(errs...)
}
