package app

import (
	"crypto/rand"
	"time"

	"sluice/internal/backend/redisgate"
	"sluice/internal/gate"
	"sluice/internal/lib/limit"
	"sluice/internal/lib/run"
)

// Times of budgets. Leases are drawn well before they are spent, and what a process
// that has died held is lost for leaseTime.
const (
	drawEvery = 50 * time.Millisecond
	drawIn    = 500 * time.Millisecond
	leaseTime = 5 * time.Second
)

// sharing keeps rules of scope fleet together by pools in Redis.
func sharing(on *redisgate.Shared, gateways int) gate.Sharing {
	return gate.Sharing{
		Open: func(name string, version int64, r limit.Rate) (limit.Pool, error) {
			return on.Pool(name, version, r, leaseTime)
		},
		Holder: rand.Text(), Processes: gateways, Every: drawEvery, Timeout: drawIn, Now: time.Now,
	}
}

// budgets draws what limits of scope fleet spend. A gateway without Redis keeps its
// part of them meanwhile.
func (e *engine) budgets() run.Task {
	l := e.rules.Limits
	return steady(e.log, run.Task{Name: "shared limits", Step: l.Step, Idle: drawEvery, Wake: l.Woken()})
}
