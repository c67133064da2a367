package redisstock

import (
	"context"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// LoadScripts loads the scripts of a bucket's epoch where nobody may but its
// keeper, as a client would that sends a script again when Redis has lost it.
func LoadScripts(ctx context.Context, l *Ledger, p stock.Place, number uint32) error {
	for s := range scripts {
		if err := l.client.Do(ctx, l.client.B().ScriptLoad().Script(l.at(p).text(s, number)).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

// RestoreStep makes one step of a restore: attempt, step, kind, values.
func RestoreStep(ctx context.Context, l *Ledger, p stock.Place, token string, args ...string) error {
	return done(restoreScript.Exec(ctx, l.client, l.at(p).all, append([]string{token}, args...)))
}

// CheckServer reads an INFO.
var CheckServer = checkServer

// InTurn makes a ledger send what it sends together one command after the other,
// and calls before each with how many there were before it.
func InTurn(l *Ledger, before func(n int)) { l.client = &inTurn{Client: l.client, before: before} }

type inTurn struct {
	rueidis.Client
	before func(n int)
	n      int
}

func (c *inTurn) DoMulti(ctx context.Context, multi ...rueidis.Completed) (all []rueidis.RedisResult) {
	for _, command := range multi {
		c.before(c.n)
		c.n++
		all = append(all, c.Do(ctx, command))
	}
	return all
}

// Missing answers what the lines are refused by, careless by one reading of the
// buckets.
func Missing(ctx context.Context, l *Ledger, a stock.ActivityID, lines []stock.Line, careless bool) error {
	act, err := l.meet(ctx, a)
	if err != nil {
		return err
	}
	if !careless {
		_, err = l.missing(ctx, act, lines)
		return err
	}
	states, err := l.states(ctx, act)
	if err != nil {
		return err
	}
	return exact(states).missing(lines)
}

// Debit takes the units of a move out of its first bucket.
func Debit(ctx context.Context, l *Ledger, m stock.Move) error {
	_, _, err := l.adjustIn(ctx, l.at(stock.Place{Activity: m.Activity, Bucket: m.From}), m.Debit(0))
	return err
}
