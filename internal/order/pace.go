package order

import "time"

// pace says when a batch is full. Its size adapts: a commit that takes longer
// than slowBatch halves it, so that a slow store is not asked for ever longer
// transactions; full batches that commit well below grow it back.
type pace struct{ size int }

const (
	firstBatch = 500
	leastBatch = 8
	slowBatch  = 50 * time.Millisecond
	// fillTime bounds how long entries wait for a batch to fill: the log is
	// read to its head without blocking, so this matters only when product
	// snapshots come slowly.
	fillTime = 20 * time.Millisecond
)

func newPace() pace { return pace{firstBatch} }

func (p *pace) full(entries int, filling time.Duration) bool {
	return entries >= p.size || filling >= fillTime
}

func (p *pace) landed(entries int, took time.Duration) {
	switch {
	case took > slowBatch:
		p.size = max(leastBatch, p.size/2)
	case took < slowBatch/2 && entries >= p.size:
		p.size = min(MaxBatch, p.size+p.size/4+1)
	}
}
