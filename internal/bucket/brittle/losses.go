package brittle

import (
	"fmt"

	"sluice/internal/stock"
)

// Restart takes the scripts of every bucket away.
func (e *Engine) Restart() { e.each(func(b *bucket) { b.script = 0 }) }

// Flush takes all data away. The scripts stay.
func (e *Engine) Flush() {
	e.each(func(b *bucket) { b.state, b.book = state{}, nil })
}

// Back takes a bucket back by so many operations, and its scripts away, as a
// restart from an older file or the promotion of a replica that lagged does. It
// goes back to nothing when it has not done as many.
func (e *Engine) Back(p stock.Place, operations int) {
	e.Forget(p, operations)
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.buckets[p]; b != nil {
		b.script = 0
	}
}

// Forget is Back by an engine that does not notice: its scripts go on. No engine
// is known to do that; a keeper finds out when what has landed is missing.
func (e *Engine) Forget(p stock.Place, operations int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.buckets[p]
	if b == nil {
		return
	}
	at := len(b.history) - 1 - operations
	if at < 0 {
		b.state, b.book, b.history = state{}, nil, nil
		return
	}
	b.state, b.history = b.history[at], b.history[:at+1]
	b.replay()
}

// Skew adds to what the bucket counts of one SKU as free and as held, as
// somebody does who edits the data by hand, until it is restored. What it
// decides stays as it was: a difference in that, its keeper's book finds.
func (e *Engine) Skew(p stock.Place, by stock.Count) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.buckets[p]; b != nil {
		b.skew = by
	}
}

// replay makes the book of a state again.
func (b *bucket) replay() {
	b.book = nil
	if b.base == nil {
		return
	}
	b.book = b.base.Clone()
	for _, entry := range b.entries() {
		if err := b.book.Judge(entry); err != nil {
			panic(fmt.Sprintf("brittle: an engine's own entry is refused: %v", err))
		}
	}
}

// entries are all since the base, of which the stream has the end.
func (b *bucket) entries() []stock.Entry {
	if b.trimmed == 0 {
		return b.stream
	}
	var all []stock.Entry
	for _, s := range b.history {
		if s.base != b.base {
			continue
		}
		for _, entry := range s.stream {
			if p := entry.Cursor.Position; p <= b.trimmed && p == uint64(len(all))+1 {
				all = append(all, entry)
			}
		}
	}
	return append(all, b.stream...)
}

func (e *Engine) each(f func(b *bucket)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.buckets {
		f(b)
	}
}
