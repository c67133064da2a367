package limit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Step makes at most one call to the pool: it draws a lease when one is needed,
// or returns what the lease before last had left. worked says that it called.
// It belongs to one goroutine, and is to run each Every; in between, a budget
// only spends.
//
// A call that failed may have taken effect. So a draw is repeated under its id
// until the pool answers it, and no other lease is drawn before; what it took
// the first time is answered then, and nothing leaks.
func (b *Budget) Step(ctx context.Context) (worked bool, err error) {
	b.mu.Lock()
	asked := b.tick(b.now().UnixNano())
	b.shift(asked)
	if b.pending == "" && b.due(asked) {
		b.serial++
		b.pending, b.want = b.o.Holder+"/"+strconv.FormatUint(b.serial, 10), b.o.Lease
	}
	back := b.back
	b.mu.Unlock()
	switch {
	case b.pending != "":
		return true, b.draw(ctx, asked)
	case back.id != "":
		return true, b.giveBack(ctx)
	}
	return false, nil
}

// due says whether to draw: there is room for a second lease, and the first is
// low, nearly over, or was not enough.
func (b *Budget) due(now int64) bool {
	if b.held[1].id != "" || now < b.again {
		return false
	}
	first := b.held[0]
	return first.id == "" || b.short || b.purse[0] <= b.o.Low || first.until-now <= first.span/3
}

// shift drops leases that are over or spent, and retires the older of two
// while its permits can still be returned: shortly before its end, or when both
// together were too few for somebody and hold the place of one that is not. One
// that is retired while another waits to be returned is dropped: that is fewer
// permits, never more.
func (b *Budget) shift(now int64) {
	if b.back.until <= now {
		b.back, b.unspent = holding{}, 0
	}
	for b.held[0].id != "" {
		first, left, spare := b.held[0], b.purse[0], b.held[1].id != ""
		over := first.until <= now
		retire := spare && (left == 0 || first.until-now <= first.span/6 || b.short && now >= b.again)
		if !over && !retire {
			return
		}
		if !over && left > 0 && b.back.id == "" {
			b.back, b.unspent = first, left
		}
		b.held, b.purse = [2]holding{b.held[1]}, purse{b.purse[1]}
	}
}

func (b *Budget) draw(ctx context.Context, asked int64) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	lease, err := b.pool.Grant(ctx, b.pending, b.want)
	if err != nil {
		return fmt.Errorf("draw lease %s: %w", b.pending, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id, got := b.pending, lease.Permits
	b.pending = ""
	b.heard = b.tick(b.now().UnixNano())
	b.again = 0
	if got < b.want && lease.Again > 0 {
		b.again = asked + int64(lease.Again)
	}
	b.settle()
	paid := min(got, b.owed)
	b.owed, got = b.owed-paid, got-paid
	if got <= 0 {
		return nil
	}
	// The pool counts from its answer, which is later than our question: so
	// our view ends first, however long the answer took. It may have ended.
	c := holding{id: id, until: asked + int64(lease.ValidFor), span: int64(lease.ValidFor)}
	b.shift(b.heard)
	at := 0
	if b.held[0].id != "" {
		at = 1
	}
	b.held[at], b.purse[at], b.short = c, got, false
	return nil
}

// settle ends the advance: the pool has answered, and what was spent is owed.
func (b *Budget) settle() {
	if b.held[0].id == "" && b.held[0].until > 0 {
		b.owed = b.held[0].span - b.purse[0]
		b.held[0], b.purse[0] = holding{}, 0
	}
}

func (b *Budget) giveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	if err := b.pool.Return(ctx, b.back.id, b.unspent); err != nil {
		return fmt.Errorf("return lease %s: %w", b.back.id, err) // again, until it has run out
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = b.tick(b.now().UnixNano())
	b.back, b.unspent = holding{}, 0
	return nil
}

// Stop spends nothing any more and returns what is held, so that the others
// need not wait for its end. It is for after the last Step, and draws nothing.
func (b *Budget) Stop(ctx context.Context) error {
	b.mu.Lock()
	holdings := [...]holding{b.held[0], b.held[1], b.back, {id: b.pending}}
	permits := [...]int64{b.purse[0], b.purse[1], b.unspent, b.want}
	b.held, b.purse, b.back, b.pending = [2]holding{}, purse{}, holding{}, ""
	b.mu.Unlock()
	var faults []error
	for i, c := range holdings {
		if c.id == "" || permits[i] == 0 {
			continue
		}
		if err := b.pool.Return(ctx, c.id, permits[i]); err != nil {
			faults = append(faults, fmt.Errorf("return lease %s: %w", c.id, err))
		}
	}
	return errors.Join(faults...)
}
