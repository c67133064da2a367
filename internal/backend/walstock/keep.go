package walstock

import (
	"fmt"

	"sluice/internal/stock"
)

// Snapshots say how things stand; how they came to be is told by the log alone,
// from an activity's first entry on. So the log is kept from the first entry of
// the oldest activity that has not been released, up to a bound (KeepLog): a
// sale that goes on for ever must not fill the disk. Selling comes before
// telling, so a full disk is a bound too.
//
// Where an activity's first entry stands is written down nowhere but in the log
// itself. Of books that come from a snapshot it is looked for once, when the
// log is first to be trimmed, which is not while shoppers wait for a restart.

// Release tells that nobody needs the entries of these activities any more for
// what they tell: the final proof is written. Activities without a book are
// passed over.
func (l *Ledger) Release(activities ...stock.ActivityID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range activities {
		if acc := l.books[a]; acc != nil {
			acc.released = true
		}
	}
}

// Lost answers, once, the activities whose first entries went for the bound
// before they were released.
func (l *Ledger) Lost() []stock.ActivityID {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := l.lost
	l.lost = nil
	return lost
}

// Start is the place before the first entry still in the log, where Tail can
// begin: without an epoch as long as the log has all its entries.
func (l *Ledger) Start() stock.Cursor {
	if first := l.log.First(); first > 1 {
		return stock.Cursor{Log: LogID, Epoch: Epoch, Position: first - 1}
	}
	return stock.Cursor{Log: LogID}
}

// LogSize is what the log takes on the disk, in bytes.
func (l *Ledger) LogSize() int64 { return l.log.Size() }

// trim lets entries before a position go, unless a trail needs them.
func (l *Ledger) trim(before uint64) error {
	if l.Failed() != nil || before <= l.log.First() {
		return nil
	}
	if l.o.KeepLog > 0 {
		if err := l.search(); err != nil {
			return fmt.Errorf("first entries: %w", err)
		}
		before = min(before, max(l.needed(before), l.bound(before)))
	}
	if err := l.log.TrimBefore(before); err != nil {
		return err
	}
	l.noteLost()
	return nil
}

// needed is the first entry that a trail needs, or before.
func (l *Ledger) needed(before uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, acc := range l.books {
		if !acc.released && acc.first != 0 {
			before = min(before, acc.first)
		}
	}
	return before
}

// bound is where the log has to begin in order to be no larger than it may be.
func (l *Ledger) bound(before uint64) uint64 {
	if l.Full() != nil {
		return before
	}
	return l.log.Within(l.o.KeepLog)
}

// search finds the first entries that are still in the log.
func (l *Ledger) search() error {
	if l.searched {
		return nil
	}
	var d stock.Decoder
	found := map[stock.ActivityID]uint64{}
	for rec, err := range l.log.Read(l.log.First()) {
		if err != nil {
			return err
		}
		if stock.KindOf(rec.Data) != stock.EntryOpened {
			continue
		}
		e, err := d.Entry(rec.Data)
		if err != nil {
			return fmt.Errorf("log record %d: %w", rec.Seq, err)
		}
		found[e.Activity] = rec.Seq
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for activity, position := range found {
		if acc := l.books[activity]; acc != nil {
			acc.first = position
		}
	}
	l.searched = true
	return nil
}

// noteLost finds the activities that the log no longer reaches back to.
func (l *Ledger) noteLost() {
	start := l.log.First()
	l.mu.Lock()
	defer l.mu.Unlock()
	for activity, acc := range l.books {
		if acc.first == 0 || acc.first >= start {
			continue
		}
		acc.first = 0
		if l.o.KeepLog > 0 && !acc.released {
			l.lost = append(l.lost, activity)
		}
	}
}
