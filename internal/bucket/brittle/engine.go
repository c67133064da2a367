// Package brittle is a stock.Engine, a ledger of buckets and their log in
// memory, that can be made to lose what engines lose: its scripts, its tail, its
// data. It decides by stock.Book, so it stands for any engine that decides as
// the book does; what it adds is what keepers have to live with. It is for tests
// and simulations, which call it from one goroutine or many.
//
// A restart takes the scripts away, without which a bucket accepts nothing, and
// may take the bucket back to any state that it has ever had; so may a promotion
// of a replica. A flush takes the data and leaves the scripts.
package brittle

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"sluice/internal/stock"
)

// Engine holds any number of buckets. Now is the engine's clock.
type Engine struct {
	Now func() stock.Millis
	// Before, optional, is called before each operation; its error is the
	// operation's, which does nothing.
	Before func(operation string, p stock.Place) error

	mu      sync.Mutex
	buckets map[stock.Place]*bucket
}

// state is what a bucket keeps, and may be taken back to.
type state struct {
	token   uint64
	epoch   uint32      // in which it accepts; 0: fenced
	base    *stock.Book // as it was restored; nil: no data
	stream  []stock.Entry
	trimmed uint64 // positions up to here are gone from the stream
	landed  uint64
	skew    stock.Count // see Skew
}

type bucket struct {
	state
	script  uint32      // epoch of the scripts that are loaded; 0: none
	book    *stock.Book // base and all of the stream
	history []state
}

var (
	_ stock.Engine = (*Engine)(nil)
	_ stock.Log    = (*Engine)(nil)
)

// New has no buckets.
func New(now func() stock.Millis) *Engine {
	return &Engine{Now: now, buckets: make(map[stock.Place]*bucket)}
}

// at runs f on a bucket. Whatever f does can be taken back later.
func (e *Engine) at(p stock.Place, operation string, f func(b *bucket) error) error {
	if e.Before != nil {
		if err := e.Before(operation, p); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.buckets[p]
	if b == nil {
		b = &bucket{}
		e.buckets[p] = b
	}
	err := f(b)
	b.history = append(b.history, b.state)
	return err
}

// accepting is what every script checks first.
func (b *bucket) accepting() error {
	if b.script == 0 || b.epoch != b.script || b.base == nil {
		return stock.ErrNotReady
	}
	return nil
}

// by is what every step of a keeper checks first.
func (b *bucket) by(token uint64) error {
	if token < b.token {
		return stock.ErrStale
	}
	b.token = token
	return nil
}

// Head implements stock.Engine.
func (e *Engine) Head(_ context.Context, p stock.Place, epoch uint32) (at stock.Cursor, err error) {
	err = e.at(p, "head", func(b *bucket) error {
		if b.epoch != epoch || b.accepting() != nil {
			return stock.ErrNotReady
		}
		at = stock.Cursor{Log: p.Log(), Epoch: epoch, Position: b.book.Sequence()}
		return nil
	})
	return at, err
}

// Fence implements stock.Engine.
func (e *Engine) Fence(_ context.Context, p stock.Place, token uint64) error {
	return e.at(p, "fence", func(b *bucket) error {
		if err := b.by(token); err != nil {
			return err
		}
		b.epoch = 0
		return nil
	})
}

// Restore implements stock.Engine.
func (e *Engine) Restore(_ context.Context, p stock.Place, token uint64, book *stock.Book) error {
	return e.at(p, "restore", func(b *bucket) error {
		switch err := b.by(token); {
		case err != nil:
			return err
		case b.epoch != 0:
			return fmt.Errorf("%w: restore of a bucket that accepts", stock.ErrStale)
		}
		b.base, b.book = book.Clone(), book.Clone()
		b.stream, b.trimmed, b.landed, b.skew = nil, 0, 0, stock.Count{}
		return nil
	})
}

// Activate implements stock.Engine.
func (e *Engine) Activate(_ context.Context, p stock.Place, token uint64, epoch uint32) error {
	return e.at(p, "activate", func(b *bucket) error {
		switch err := b.by(token); {
		case err != nil:
			return err
		case b.base == nil || b.book.Allocation().Epoch != epoch:
			return stock.ErrNotReady // what was restored is lost again
		}
		b.epoch, b.script = epoch, epoch
		return nil
	})
}

// Landed implements stock.Engine.
func (e *Engine) Landed(_ context.Context, upTo stock.Cursor) error {
	p, err := stock.PlaceOf(upTo.Log)
	if err != nil {
		return err
	}
	return e.at(p, "landed", func(b *bucket) error {
		if err := b.accepting(); err != nil || b.epoch != upTo.Epoch {
			return stock.ErrNotReady
		}
		b.landed = max(b.landed, upTo.Position)
		return nil
	})
}

// Retire implements stock.Engine.
func (e *Engine) Retire(_ context.Context, p stock.Place, token uint64) error {
	return e.at(p, "retire", func(b *bucket) error {
		if err := b.by(token); err != nil {
			return err
		}
		b.state, b.book = state{token: b.token}, nil
		return nil
	})
}

// Tail implements stock.Log.
func (e *Engine) Tail(_ context.Context, after stock.Cursor) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		p, err := stock.PlaceOf(after.Log)
		if err != nil {
			yield(stock.Entry{}, err)
			return
		}
		var stream []stock.Entry
		err = e.at(p, "tail", func(b *bucket) error {
			stream = b.stream
			if len(stream) > 0 && stream[0].Cursor.Epoch == after.Epoch && after.Position < b.trimmed {
				return stock.ErrTruncated
			}
			return nil
		})
		if err != nil {
			yield(stock.Entry{}, err)
			return
		}
		for _, entry := range stream {
			c := entry.Cursor
			if (c.Epoch > after.Epoch || c.Epoch == after.Epoch && c.Position > after.Position) && !yield(entry, nil) {
				return
			}
		}
	}
}

// Trim implements stock.Log.
func (e *Engine) Trim(_ context.Context, upTo stock.Cursor) error {
	p, err := stock.PlaceOf(upTo.Log)
	if err != nil {
		return err
	}
	return e.at(p, "trim", func(b *bucket) error {
		// The newest entry stays, so that a stream is never without its epoch.
		for len(b.stream) > 1 && b.stream[0].Cursor.Epoch == upTo.Epoch && b.stream[0].Cursor.Position <= upTo.Position {
			b.trimmed = b.stream[0].Cursor.Position
			b.stream = b.stream[1:]
		}
		return nil
	})
}

// add appends what the book did.
func (b *bucket) add(p stock.Place, e *stock.Entry) {
	if e == nil {
		return
	}
	c := *e
	c.Cursor = stock.Cursor{Log: p.Log(), Epoch: b.epoch, Position: e.Sequence}
	if e.Reservation != nil {
		r := *e.Reservation
		r.Lines, r.Claims = slices.Clone(r.Lines), slices.Clone(r.Claims)
		c.Reservation = &r
	}
	b.stream = append(b.stream[:len(b.stream):len(b.stream)], c) // older states share what is before
}
