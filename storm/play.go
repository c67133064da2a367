package storm

import (
	"context"
	"sync/atomic"
	"time"
)

// play is a rush in which every user acts for himself.
type play struct {
	r       *rehearsal
	cast    cast
	street  *street
	stage   *agenda
	on      atomic.Bool // until the end of the rush
	treats  [profiles]*treatment
	results []Treatment

	lateMost atomic.Int64 // ns
}

func newPlay(r *rehearsal) *play {
	p := &play{r: r, cast: newCast(r.o), street: newStreet(r.o.Connections * 4), stage: newAgenda()}
	for i := range p.treats {
		p.treats[i] = newTreatment()
	}
	return p
}

func (p *play) treated(as profile) *treatment { return p.treats[as] }

// run lets everybody come from now on and act until the rush is over, at until.
func (p *play) run(ctx context.Context, until time.Time) {
	ctx, stop := context.WithDeadline(ctx, until)
	defer stop()
	p.on.Store(true)
	opens := p.r.oracle.opens
	begin := time.Now()
	lead := max(time.Until(opens), 0)
	for u := range p.cast.users {
		a := &actor{p: p, user: u, kind: p.cast.of(u), from: p.cast.address(u), as: p.cast.manner(u), at: p.r.targets[u%len(p.r.targets)].url}
		a.plan(begin.Add(p.cast.arrival(u, lead, until.Sub(opens))), enter)
	}
	p.stage.work(ctx, p.r.o.Connections)
	p.on.Store(false)
	p.street.close()
	p.results = p.sumUp()
	if worst := time.Duration(p.lateMost.Load()); worst > maxLate {
		p.r.notes.add("users came up to %s later than they wanted to: this machine, or %d connections, cannot act so many", worst.Round(time.Millisecond), p.r.o.Connections)
	}
}

// late notes by how much a step was late.
func (p *play) late(d time.Duration) {
	for {
		worst := p.lateMost.Load()
		if int64(d) <= worst || p.lateMost.CompareAndSwap(worst, int64(d)) {
			return
		}
	}
}

// sumUp is what both profiles had got by the end of the rush.
func (p *play) sumUp() (all []Treatment) {
	var got [profiles]int
	has := map[int]bool{}
	p.r.oracle.mu.Lock()
	for _, r := range p.r.oracle.order {
		if r.try.generation&greedy == 0 && !r.refused && !has[r.try.user] {
			has[r.try.user] = true
			got[p.cast.of(r.try.user)]++
		}
	}
	p.r.oracle.mu.Unlock()
	for as := range profiles {
		if p.cast.count(as) > 0 {
			all = append(all, p.treats[as].report(as, p.cast, got[as], len(has)))
		}
	}
	return all
}

// profiled says whether users act for themselves.
func (o *Options) profiled() bool {
	return o.People || o.Bots > 0 || o.Queue || o.Tickets || o.Challenge != ""
}
