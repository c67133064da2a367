package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"sluice/storm"
)

// patience with a server that was armed: it is killed at random when it does
// not come to its point in time.
const patience = 3 * time.Second

// supervisor ends one life of the server after the other.
type supervisor struct {
	h     *house
	alive *process // the one that runs now
	lives []life
	tally *tally
	wrong []error // what the server did that it should not
}

// watch is what the storm hears of it.
type watch interface {
	Down(at time.Time)
	Up()
}

// deaf is a watch for starts without a storm.
type deaf struct{}

func (deaf) Down(time.Time) {}
func (deaf) Up()            {}

// Run is a storm.Supervisor: it ends the life that it finds, then lives the
// planned ones, and leaves a server that nobody will kill.
func (s *supervisor) Run(ctx context.Context, w *storm.Watch) error {
	return s.run(ctx, w)
}

func (s *supervisor) run(ctx context.Context, w watch) error {
	if s.alive != nil {
		s.unarmed(ctx)
		w.Down(s.alive.at)
	}
	for _, l := range s.lives {
		if ctx.Err() != nil {
			break
		}
		if err := s.live(ctx, l, w); err != nil {
			return err
		}
	}
	p, err := s.h.start(nil)
	if err != nil {
		return err
	}
	s.alive = p
	// Also when the rush is over already: the storm needs its server.
	if !s.h.awaitReady(context.WithoutCancel(ctx), p, time.Now().Add(startLimit)) {
		return s.notReady(p)
	}
	w.Up()
	return nil
}

// unarmed ends the life in which the sale was put up.
func (s *supervisor) unarmed(ctx context.Context) {
	const spell = 800 * time.Millisecond // from before the opening until a little after
	select {
	case <-time.After(spell):
	case <-s.alive.ended:
	case <-ctx.Done():
	}
	s.count(s.end(s.alive, life{}))
}

// live is one life, from start to kill.
func (s *supervisor) live(ctx context.Context, l life, w watch) error {
	p, err := s.h.start(l.env())
	if err != nil {
		return err
	}
	s.alive = p
	defer func() { w.Down(p.at) }()
	if l.at == nil && !l.term {
		return s.random(ctx, l, p, w)
	}
	if !s.h.awaitReady(ctx, p, p.began.Add(startLimit)) {
		if !p.gone() && ctx.Err() == nil {
			return s.notReady(p)
		}
		return s.end(p, l)
	}
	s.tally.ready(time.Since(p.began))
	w.Up()
	switch {
	case !l.term: // also a point of starting may come a little after it is ready
		s.await(ctx, p, p.began.Add(l.after+patience))
	default:
		s.await(ctx, p, p.began.Add(l.after))
		p.signal(syscall.SIGTERM)
		if l.at == nil {
			s.await(ctx, p, time.Now().Add(l.lag))
		} else {
			s.await(ctx, p, time.Now().Add(patience))
		}
	}
	s.count(s.end(p, l))
	return nil
}

// random lets a server live for its time, ready or not.
func (s *supervisor) random(ctx context.Context, l life, p *process, w watch) error {
	if !s.h.awaitReady(ctx, p, p.began.Add(l.after)) {
		return s.end(p, l)
	}
	s.tally.ready(time.Since(p.began))
	w.Up()
	s.await(ctx, p, p.began.Add(l.after))
	s.count(s.end(p, l))
	return nil
}

// await returns when the process has ended, the time is over, or ctx.
func (s *supervisor) await(ctx context.Context, p *process, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ended:
	case <-ctx.Done():
	}
}

// end kills the process if it lives still, and counts how it died. One that is
// gone before that died at its point, or has stopped as it was told, or is an
// error.
func (s *supervisor) end(p *process, l life) error {
	own := p.gone()
	p.kill()
	atPoint := own && p.killed() && l.at != nil
	clean := own && l.term && !p.how.Signaled() && p.how.ExitStatus() == 0
	s.tally.died(l, atPoint, clean)
	if own && !atPoint && !clean {
		return s.h.strange("ended by itself", p)
	}
	return nil
}

// count keeps what went wrong in a life that others may follow.
func (s *supervisor) count(err error) {
	if err != nil {
		s.wrong = append(s.wrong, err)
	}
}

var errNotReady = errors.New("the server is not ready in time")

func (s *supervisor) notReady(p *process) error {
	early := p.gone()
	p.kill()
	if early {
		return s.h.strange("ended while it started", p)
	}
	return fmt.Errorf("%w: %w", errNotReady, s.h.strange("was ended by us", p))
}
