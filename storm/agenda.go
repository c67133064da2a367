package storm

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// agenda is what users do after an attempt: pay in a while, cancel, click
// again, look whether it expired. Errands wait for their time in a heap and
// are done by a bounded number of workers, apart from the attempts' lanes, so
// that waiting for a payment never holds up the schedule.
type agenda struct {
	mu    sync.Mutex
	heap  errands
	wake  chan struct{}
	ready chan func()
	open  atomic.Int64 // waiting or being done
}

type errand struct {
	due time.Time
	do  func()
}

func newAgenda() *agenda {
	return &agenda{wake: make(chan struct{}, 1), ready: make(chan func())}
}

// at plans an errand. Errands may plan others.
func (a *agenda) at(due time.Time, do func()) {
	a.open.Add(1)
	a.mu.Lock()
	heap.Push(&a.heap, errand{due, do})
	first := a.heap[0].due.Equal(due)
	a.mu.Unlock()
	if first {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// behind is how long the errand that is next has been due.
func (a *agenda) behind(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.heap) == 0 {
		return 0
	}
	return now.Sub(a.heap[0].due)
}

func (a *agenda) after(d time.Duration, do func()) { a.at(time.Now().Add(d), do) }

// work hands errands that are due to n workers until ctx ends, and returns
// when all workers have stopped. What is not done by then is dropped.
func (a *agenda) work(ctx context.Context, n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for do := range a.ready {
				do()
				a.open.Add(-1)
			}
		})
	}
	a.dispatch(ctx)
	close(a.ready)
	wg.Wait()
}

func (a *agenda) dispatch(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		do, wait := a.pop(time.Now())
		if do != nil {
			select {
			case a.ready <- do:
				continue
			case <-ctx.Done():
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-a.wake:
		case <-ctx.Done():
			return
		}
	}
}

// pop takes the first errand if it is due, or tells how long to wait for it.
func (a *agenda) pop(now time.Time) (do func(), wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.heap) == 0 {
		return nil, time.Minute
	}
	if wait := a.heap[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&a.heap).(errand).do, 0
}

// errands is a heap by due time.
type errands []errand

func (e errands) Len() int           { return len(e) }
func (e errands) Less(i, j int) bool { return e[i].due.Before(e[j].due) }
func (e errands) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *errands) Push(x any)        { *e = append(*e, x.(errand)) }

func (e *errands) Pop() any {
	old := *e
	last := len(old) - 1
	x := old[last]
	old[last] = errand{}
	*e = old[:last]
	return x
}
