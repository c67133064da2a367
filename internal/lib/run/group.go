package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Group starts and stops the parts of a process. The zero Group is empty and
// ready; it is filled before Run and runs once.
type Group struct {
	Log   *slog.Logger // optional: each start and stop, with how long it took
	parts []*part

	mu        sync.Mutex
	interrupt context.CancelFunc // set while Run runs
	over      bool               // everything has stopped; failures no longer count
	failure   error              // the first one
}

type part struct {
	name     string
	start    func(context.Context) error
	stop     func(context.Context) error
	deadline time.Duration
	end      context.CancelFunc // of the context that start was given
}

// Add appends a part. start returns once the part is up; the context it is
// given ends early if the group is told to stop while start still runs, and
// otherwise when the part has stopped, so a part may keep it. stop is called
// only after a start that succeeded; its context, and Run's patience, end
// after deadline. Either may be nil.
func (g *Group) Add(name string, start, stop func(context.Context) error, deadline time.Duration) {
	if deadline <= 0 {
		panic("run: part " + name + " has no deadline")
	}
	g.parts = append(g.parts, &part{name: name, start: start, stop: stop, deadline: deadline})
}

// Go appends a part that is a function running until its context is done, such
// as a loop or a server. Returning before that, with an error or without, is a
// failure that stops the group.
func (g *Group) Go(name string, body func(context.Context) error, deadline time.Duration) {
	var cancel context.CancelFunc
	var ended error
	done := make(chan struct{})
	start := func(ctx context.Context) error {
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			defer close(done)
			err := body(ctx)
			switch {
			case ctx.Err() == nil && err == nil:
				g.Fail(fmt.Errorf("%s: ended by itself", name))
			case ctx.Err() == nil:
				g.Fail(fmt.Errorf("%s: %w", name, err))
			case !errors.Is(err, context.Canceled):
				ended = err
			}
		}()
		return nil
	}
	stop := func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return ended
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.Add(name, start, stop, deadline)
}

// Task appends the loop of a background task.
func (g *Group) Task(log *slog.Logger, t Task, deadline time.Duration) {
	g.Go(t.Name, func(ctx context.Context) error {
		Loop(ctx, log, t)
		return nil
	}, deadline)
}

// Fail stops the group with err; only the first failure counts. It is for
// parts whose failure shows after their start returned.
func (g *Group) Fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure == nil && !g.over {
		g.failure = err
	}
	if g.interrupt != nil {
		g.interrupt()
	}
}

// Run starts the parts, waits until ctx is done or a part fails, and stops
// what was started in reverse. It answers the first failure joined with those
// of stopping; a stop by ctx alone is no error. It returns within the sum of
// the deadlines after the group was told to stop, even if a stop hangs.
func (g *Group) Run(ctx context.Context) error {
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
	// Parts must outlive ctx until their turn to stop has come.
	life := context.WithoutCancel(ctx)
	told, interrupt := context.WithCancel(ctx)
	defer interrupt()
	g.mu.Lock()
	g.interrupt = interrupt
	g.mu.Unlock()

	var started []*part
	for _, p := range g.parts {
		if told.Err() != nil {
			break
		}
		if err := g.startPart(life, told, p); err != nil {
			if told.Err() == nil || !errors.Is(err, context.Canceled) {
				g.Fail(err)
			}
			interrupt()
			break
		}
		started = append(started, p)
	}
	<-told.Done()

	var stopping []error
	for _, p := range slices.Backward(started) {
		stopping = append(stopping, g.stopPart(life, p))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	return errors.Join(g.failure, errors.Join(stopping...))
}

func (g *Group) startPart(life, told context.Context, p *part) error {
	var ctx context.Context
	ctx, p.end = context.WithCancel(life)
	if p.start == nil {
		return nil
	}
	began := time.Now()
	detach := context.AfterFunc(told, p.end)
	err := p.start(ctx)
	detach()
	if err != nil {
		p.end()
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	g.Log.Info("started", "part", p.name, "took", time.Since(began))
	return nil
}

// stopPart does not wait for a stop that ignores its deadline: the process is
// about to end, and one stuck part must not keep the others from stopping.
func (g *Group) stopPart(life context.Context, p *part) error {
	defer p.end()
	if p.stop == nil {
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(life, p.deadline)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- p.stop(ctx) }()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	g.Log.Info("stopped", "part", p.name, "took", time.Since(began))
	return nil
}
