package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"sluice/internal/stock"
)

// This file is how writes are made on a server: each in a transaction of its
// own, side by side with others, run again where that is safe.
const (
	patience   = 5 * time.Second // see writer
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// end is what is known of a transaction's end.
type end int

const (
	committed end = iota
	undone        // for certain: COMMIT was not asked for, or was refused
	unknown       // COMMIT was asked for and its answer not heard
)

// alone runs f in a transaction of its own, and again after a deadlock, a lost
// connection or a fail-over. See writer.do.
//
// When the answer to a COMMIT is not heard, f runs again with c.doubt set. Each
// write begins by locking what it is about to change, and an earlier run, as
// long as its end is open, still holds those locks: so f sees either what that
// run wrote or what was there before it, for good. Writes that may be made
// twice without harm need no more; the others compare.
func (w *writer) alone(ctx context.Context, f func(c *conn) error) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.leave()
	var until time.Time // when patience ends; zero before the first failure
	var doubt error     // the first COMMIT without an answer
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		how, err := w.once(ctx, f, doubt != nil)
		if how == committed {
			w.commits.Add(1)
			return nil
		}
		if how == unknown && doubt == nil {
			doubt = err
		}
		late := doubt != nil && errors.Is(err, context.DeadlineExceeded) // our own, see once
		if how == undone && !again(err) && !lost(err) && !late {
			return err // what f refused, or SQL that will fail again
		}
		if until.IsZero() {
			until = time.Now().Add(w.patience)
		}
		if time.Now().Before(until) && rest(ctx, pause, doubt != nil) {
			w.retries.Add(1)
			continue
		}
		switch {
		case doubt != nil:
			return fmt.Errorf("%w: no answer to a commit (%v): %w", stock.ErrUnknown, doubt, err)
		case ctx.Err() != nil:
			return ctx.Err() // nothing has happened
		}
		return err
	}
}

// once runs f in one transaction.
func (w *writer) once(ctx context.Context, f func(c *conn) error, doubt bool) (how end, err error) {
	how = undone
	if doubt {
		// The answer is owed now, whoever still waits for it.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), w.patience)
		defer cancel()
	}
	var inner error
	err = onConn(ctx, w.db, func(c *conn) error {
		c.doubt = doubt
		how, inner = c.transaction(f)
		return nil // the pool hears of it by IsValid
	})
	if err != nil {
		return undone, err // there was no connection to be had
	}
	return how, inner
}

// transaction runs f between BEGIN and COMMIT. A connection of which it is not
// certain that its transaction has ended is marked dead.
func (c *conn) transaction(f func(c *conn) error) (end, error) {
	if _, err := c.exec(c.d.beginWrite); err != nil {
		c.dead = true
		return undone, err
	}
	if err := f(c); err != nil {
		_, back := c.exec("ROLLBACK")
		c.dead = back != nil || lost(err)
		return undone, err
	}
	if c.of.over(c.term) { // another server was promoted meanwhile
		_, _ = c.exec("ROLLBACK")
		c.dead = true
		return undone, errNotPrimary
	}
	_, err := c.exec("COMMIT")
	if err == nil {
		return committed, nil
	}
	c.dead = true
	if again(err) {
		return undone, err // a cluster found the conflict at the last moment
	}
	return unknown, err
}

// rest waits before another try: about a pause, so that those who collided do
// not meet again. It answers false when the caller gave up, unless it is owed
// an answer.
func rest(ctx context.Context, pause time.Duration, owed bool) bool {
	timer := time.NewTimer(pause/2 + rand.N(pause))
	defer timer.Stop()
	if owed {
		<-timer.C
		return true
	}
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *writer) enter(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(ctx, w.under); err != nil {
		return err
	}
	w.under++
	w.writes.Add(1)
	return nil
}

func (w *writer) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.under--; w.under == 0 {
		w.idle.Broadcast()
	}
}
