package redisstock

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// The keeper's scripts. They are the same for every bucket and epoch and may be
// sent again: what guards them is the token.
var (
	//go:embed lua/fence.lua
	fenceText string
	//go:embed lua/restore.lua
	restoreText string
	//go:embed lua/activate.lua
	activateText string
	//go:embed lua/landed.lua
	landedText string
	//go:embed lua/retire.lua
	retireText string

	fenceScript   = rueidis.NewLuaScript(fenceText)
	restoreScript = rueidis.NewLuaScript(restoreText)
	landedScript  = rueidis.NewLuaScript(landedText)
	retireScript  = rueidis.NewLuaScript(retireText)
)

// attempt is a restore that has been made and not been activated: its name and
// its last step.
type attempt struct {
	name  string
	step  int
	epoch uint32
}

func (a attempt) stage() string { return a.name + ":" + strconv.Itoa(a.step) }

// Head implements stock.Engine. Only what Redis itself answers is ErrNotReady: a
// keeper rebuilds the bucket then, which it must not do because of a bad wire.
func (l *Ledger) Head(ctx context.Context, p stock.Place, number uint32) (stock.Cursor, error) {
	b := l.at(p)
	e := b.epoch(number)
	_, reply, _, err := l.run(ctx, b, e, lookup, []string{b.m, b.u}, []string{"", e.seenText()})
	switch {
	case err == nil:
	case ofAnEpoch(err):
		return stock.Cursor{}, err
	default:
		return stock.Cursor{}, fmt.Errorf("%w: %v", stock.ErrUnknown, err)
	}
	at, err := reply[2].AsUint64()
	if err != nil {
		return stock.Cursor{}, fmt.Errorf("%w: %w", stock.ErrUnknown, err)
	}
	e.note(at)
	if at == 0 {
		return stock.Cursor{Log: p.Log(), Epoch: number}, nil
	}
	return stock.Cursor{Log: p.Log(), Epoch: number, Position: at}, nil
}

// Fence implements stock.Engine. Tokens are below 2^53.
func (l *Ledger) Fence(ctx context.Context, p stock.Place, token uint64) error {
	b := l.at(p)
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	err := done(fenceScript.Exec(ctx, l.client, []string{b.m}, []string{strconv.FormatUint(token, 10)}))
	if e := b.now.Load(); e != nil && err == nil {
		b.forget(e)
	}
	return err
}

// Landed implements stock.Engine.
func (l *Ledger) Landed(ctx context.Context, upTo stock.Cursor) error {
	p, err := stock.PlaceOf(upTo.Log)
	if err != nil {
		return err
	}
	b := l.at(p)
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	err = done(landedScript.Exec(ctx, l.client, []string{b.m}, []string{strconv.FormatUint(uint64(upTo.Epoch), 10), strconv.FormatUint(upTo.Position, 10)}))
	if err == nil {
		b.epoch(upTo.Epoch).landed.note(upTo.Position)
	}
	return err
}

// Retire implements stock.Engine.
func (l *Ledger) Retire(ctx context.Context, p stock.Place, token uint64) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	return done(retireScript.Exec(ctx, l.client, l.at(p).all,
		[]string{strconv.FormatUint(token, 10), strconv.FormatInt(l.o.Retain.Milliseconds(), 10)}))
}

// Activate implements stock.Engine. It succeeds once for each Restore: after an
// answer that was lost, Head tells whether it did, and if not, a new epoch is
// the way on. For between the two this Redis may have been another.
func (l *Ledger) Activate(ctx context.Context, p stock.Place, token uint64, number uint32) error {
	b := l.at(p)
	l.mu.Lock()
	a, ok := l.attempts[p]
	delete(l.attempts, p)
	l.mu.Unlock()
	if !ok || a.epoch != number {
		return fmt.Errorf("%w: bucket %d of %s has not been restored for epoch %d", stock.ErrNotReady, p.Bucket, p.Activity, number)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	var err error
	for range 3 { // the connection kept for this may have broken since it was last used
		begun := false
		err = l.client.Dedicated(func(c rueidis.DedicatedClient) error {
			// A command with a key goes first, to the node that owns the slot.
			if err := c.Do(ctx, c.B().Exists().Key(b.m).Build()).Error(); err != nil {
				return fault(err)
			}
			begun = true
			return l.activate(ctx, c, b, token, number, a)
		})
		if begun || err == nil {
			break
		}
	}
	return err
}

// activate uses one connection for all of it: a server that restarts or is
// replaced half way through breaks it.
func (l *Ledger) activate(ctx context.Context, c rueidis.DedicatedClient, b *bucket, token uint64, number uint32, a attempt) error {
	for s := range scripts {
		if err := c.Do(ctx, c.B().ScriptLoad().Script(b.text(s, number)).Build()).Error(); err != nil {
			return fault(err)
		}
	}
	return done(c.Do(ctx, c.B().Eval().Script(activateText).Numkeys(1).Key(b.m).Arg(strconv.FormatUint(token, 10),
		strconv.FormatUint(uint64(number), 10), a.stage()).Build()))
}

// done reads the answer of a keeper's script.
func done(result rueidis.RedisResult) error {
	reply, err := result.ToArray()
	if err != nil {
		return fault(err)
	}
	tag, err := reply[0].ToString()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", stock.ErrUnknown, err)
	case tag == "DONE":
		return nil
	case tag == "STALE":
		return stock.ErrStale
	}
	return fmt.Errorf("%w: redis has lost what was there, or does not accept in this epoch (%s)", stock.ErrNotReady, tag)
}
