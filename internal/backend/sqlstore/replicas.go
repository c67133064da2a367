package sqlstore

import (
	"context"
	"database/sql/driver"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file is about which replica of a database is read, and what is known of
// it. A look at all servers, a few times a second, asks the primary how far its
// binary log goes and then each replica whether it has come that far. So of each
// replica it is known, by this process's own clock, until when it has everything
// that was committed: no clocks are compared, and nothing is written.
//
// A process reads one replica of a database at a time, chosen at random, so that
// what it shows goes forward as that replica does. Many processes spread.
const (
	maxReplicas   = 8
	defaultMaxLag = time.Second
	leastMaxLag   = 500 * time.Millisecond
	nearDial      = time.Second
	nearWait      = 5 * time.Second        // of a read, before the primary is asked instead
	awayWait      = 250 * time.Millisecond // for a primary that does not answer looks
	reachWait     = "0.05"                 // seconds in which a replica may catch up with a look
	reachWithin   = 500 * time.Millisecond // for all that is asked of a replica then
	maxProbes     = 32
	// awayBehind is how far behind a replica may have been when the primary went
	// away, to be read while it is.
	awayBehind = time.Minute
)

// replicas are the followers of a database's primary.
type replicas struct {
	*members
	maxLag time.Duration
	now    func() time.Time

	one sync.Mutex // look at a time
	mu  sync.Mutex
	of  []follower // by member; the primary's is not used
	cur int        // the member that is read; -1: none
	// last is the one that was read last. Another one may be behind it, and is read
	// only when it has all that was committed when the change was made.
	last  int
	floor time.Time
	away  time.Time // since when the primary does not answer; zero: it does
	// present ends when the primary is found to be away, by leaves.
	present context.Context
	leaves  context.CancelFunc

	reads, misses atomic.Uint64 // answered by a replica; asked of the primary after all
}

// follower is what is known of a replica.
type follower struct {
	answers bool      // reads only, and is of the present term
	in      bool      // may be read
	covered time.Time // what was committed by then it has
	asked   time.Time // when that was found out
	probes  []probe   // places of the primary's log that it had not reached, oldest first
}

// probe is how far the primary's log went at a time.
type probe struct {
	at       time.Time
	position string
}

func newReplicas(m *members, maxLag time.Duration) *replicas {
	r := &replicas{members: m, maxLag: maxLag, now: time.Now, of: make([]follower, len(m.all)), cur: -1, last: -1}
	r.present, r.leaves = context.WithCancel(context.Background())
	return r
}

// FollowReplicas is a Step that looks which server of each database is the
// primary and how far behind it the others are; without replicas it does
// nothing. Run it every 200 ms or so: what it has not looked at for longer than
// maxlag is not read. What it finds it logs; it has no errors of its own.
func (s *Sharded) FollowReplicas(ctx context.Context) (worked bool, err error) {
	if s.session == nil { // there are no replicas
		return false, nil
	}
	covered := make([]time.Time, len(s.dbs))
	var all sync.WaitGroup
	for i, db := range s.dbs {
		covered[i] = s.session.now()
		if db.replicas != nil {
			all.Go(func() { covered[i] = db.replicas.follow(ctx) })
		}
	}
	all.Wait()
	s.session.forget(slices.MinFunc(covered, time.Time.Compare))
	return false, ctx.Err()
}

// follow looks once, and answers what the replica that is read has, zero if none.
func (r *replicas) follow(ctx context.Context) (covered time.Time) {
	r.one.Lock()
	defer r.one.Unlock()
	looks := r.look(ctx, lookSoon)
	primary, err := r.learn(looks)
	r.mu.Lock()
	measured := make([]follower, len(r.of))
	copy(measured, r.of)
	term := r.members.highest()
	r.mu.Unlock()
	var all sync.WaitGroup
	for i := range measured {
		f, l := &measured[i], looks[i]
		f.answers = i != primary && l.err == nil && l.readOnly && l.term == term
		if !f.answers || err != nil || looks[primary].position == "" { // without a binary log nothing is known
			continue
		}
		probes, at := f.probes, looks[primary].at
		if n := len(probes); n < maxProbes && at.After(f.covered) && (n == 0 || at.After(probes[n-1].at)) {
			probes = append(probes[:n:n], probe{at, looks[primary].position})
		}
		if l.open || len(probes) == 0 { // it is late with an answer, or the primary is
			continue
		}
		all.Go(func() {
			// Of its own: what others have used up must not be missing here.
			ctx, cancel := context.WithTimeout(ctx, reachWithin)
			defer cancel()
			f.reach(ctx, r.all[i], probes)
			f.asked = r.now()
		})
	}
	all.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.judge(measured, primary, err)
	if r.cur < 0 {
		return time.Time{}
	}
	return r.of[r.cur].covered
}

// highest is the term that counts.
func (m *members) highest() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.term
}

// hasReached waits a little for a position; 0 says that it is there. The value
// stands outside of what one of the servers leaves out, since the driver takes
// all of that for a comment.
const hasReached = "SELECT /*M! MASTER_GTID_WAIT( */ /*!80000 WAIT_FOR_EXECUTED_GTID_SET( */ ?, " + reachWait + ")"

// reach asks a replica which of the places it has come to: the newest first,
// which is mostly the answer, then the others from the oldest on.
func (f *follower) reach(ctx context.Context, server *member, probes []probe) {
	f.probes = probes
	err := onConn(ctx, server.watch, func(c *conn) error {
		reached := func(p probe) (yes bool, err error) {
			err = c.query(ctx, hasReached, func(row []driver.Value) error {
				yes = row[0] != nil && integer(row[0]) == 0
				return nil
			}, p.position)
			return yes, err
		}
		newest := probes[len(probes)-1]
		yes, err := reached(newest)
		if yes {
			f.covered, f.probes = newest.at, nil
			return nil
		}
		for err == nil && len(f.probes) > 1 {
			if yes, err = reached(f.probes[0]); !yes {
				break
			}
			f.covered, f.probes = f.probes[0].at, f.probes[1:]
		}
		return err
	})
	f.answers = err == nil
}

// judge decides by a look which replica is read. With the primary away nobody can
// say how far behind it a replica is: those go on that were not far when it
// went.
func (r *replicas) judge(measured []follower, primary int, err error) {
	now := r.now()
	switch {
	case err == nil && !r.away.IsZero():
		r.log.Info("the primary answers", "host", r.all[primary].host, "away", now.Sub(r.away))
		r.away = time.Time{}
		r.present, r.leaves = context.WithCancel(context.Background())
	case err != nil && r.away.IsZero():
		r.log.Warn("the primary does not answer; replicas are read meanwhile", "error", err)
		r.away = now
		r.leaves()
	}
	for i := range measured {
		f, was := &measured[i], r.of[i].in
		lag := f.asked.Sub(f.covered) // not by now: others may have kept the look waiting
		switch {
		case !f.answers || f.covered.IsZero():
			f.in = false
		case err != nil:
			f.in = was || f.covered.After(r.away.Add(-awayBehind))
		default:
			f.in = lag <= r.maxLag/2 || was && lag <= r.maxLag
		}
		if f.in != was {
			r.log.Info("replica", "host", r.all[i].host, "read", f.in, "answers", f.answers, "behind", lag)
		}
	}
	r.of = measured
	r.choose()
}

// choose stays with the replica that is read, or takes another one.
func (r *replicas) choose() {
	if r.cur >= 0 && r.of[r.cur].in {
		return
	}
	r.cur = -1
	var in []int
	for i, f := range r.of {
		if f.in {
			in = append(in, i)
		}
	}
	if len(in) == 0 {
		return
	}
	r.cur = in[rand.N(len(in))]
	if r.cur != r.last {
		r.last, r.floor = r.cur, r.now()
	}
}

// failed leaves a replica out at once; the next looks may bring it back.
func (r *replicas) failed(server *member, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.of {
		if r.all[i] == server && r.of[i].in {
			r.of[i].in, r.of[i].answers = false, false
			r.log.Warn("replica left out", "host", server.host, "error", err)
		}
	}
	r.choose()
}

// reader is the replica for a read that needs what was committed by a time, and
// until when it has everything; nil when none may answer it. unproved takes the
// one there is, when the primary has not answered.
func (r *replicas) reader(since time.Time, unproved bool) (server *member, covered time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur < 0 {
		return nil, time.Time{}
	}
	f := r.of[r.cur]
	switch has := func(t time.Time) bool { return t.IsZero() || f.covered.After(t) }; {
	case unproved:
	case !has(since):
		return nil, time.Time{}
	case r.away.IsZero() && (!has(r.floor) || r.now().Sub(f.covered) > r.maxLag):
		return nil, time.Time{}
	}
	return r.all[r.cur], f.covered
}

// unlessAway calls cancel awayWait after the primary was found to be away, or from
// now on if it is; with stop, not any more.
func (r *replicas) unlessAway(cancel func()) (stop func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return context.AfterFunc(r.present, func() { time.AfterFunc(awayWait, cancel) })
}

// ReplicaStatus is a server of a database that has replicas.
type ReplicaStatus struct {
	Database int           // from 1
	Host     string        // as in the address
	Primary  bool          // as far as is known
	Read     bool          // this process reads it as a replica
	Behind   time.Duration // at most, as was proved last; -1: never; 0 for the primary
}

// ReplicaReads are how many reads that a replica may answer it has answered, and how many
// the primary.
type ReplicaReads struct{ Replica, Primary uint64 }

// Replicas says how the servers of the databases with replicas stand.
func (s *Sharded) Replicas() (all []ReplicaStatus, reads ReplicaReads) {
	for _, db := range s.dbs {
		r := db.replicas
		if r == nil {
			continue
		}
		r.members.mu.Lock()
		primary := r.at
		r.members.mu.Unlock()
		r.mu.Lock()
		for i, f := range r.of {
			is := ReplicaStatus{Database: db.number + 1, Host: r.all[i].host, Primary: i == primary, Read: i == r.cur, Behind: -1}
			switch {
			case is.Primary:
				is.Behind = 0
			case !f.covered.IsZero():
				is.Behind = r.now().Sub(f.covered)
			}
			all = append(all, is)
		}
		r.mu.Unlock()
		reads.Replica += r.reads.Load()
		reads.Primary += r.misses.Load()
	}
	return all, reads
}
