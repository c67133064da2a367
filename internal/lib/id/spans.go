package id

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Spans gives a source the spans of time that it may mint in. They are segments
// of the worker number's row of milliseconds: cut durably before they are used,
// and never twice. So two processes that had one worker number mint in different
// milliseconds, however short the time between them was and whatever their clocks
// say; and one that does not reach the store stops when its span is over.
//
// Step belongs to one goroutine.
type Spans struct {
	row    string
	from   segments
	source *Source
	lasts  uint64 // ms
	have   span   // the source's
}

// NewSpans takes all time away from a source. From the first Step on it has a
// span that ends when its clock has gone on by lasts, at least a millisecond.
func NewSpans(source *Source, from segments, lasts time.Duration) *Spans {
	s := &Spans{row: "ids/" + strconv.FormatUint(source.worker, 10), from: from, source: source, lasts: uint64(max(lasts.Milliseconds(), 1))}
	source.span.Store(&span{})
	return s
}

// Used says whether another process mints in the row of this source's worker
// number: a living one is at least two thirds of a span ahead. next is from where
// the row would be cut, 0 for a row that is new. Cutting is no way to find out: the
// span of who has it would be torn, and its ids leap ahead of the clock.
func (s *Spans) Used(ctx context.Context, next func(ctx context.Context, row string) (int64, error)) (bool, error) {
	n, err := next(ctx, s.row)
	return uint64(max(n, 0)) >= millis(s.source.now())+s.lasts/3, err
}

// Step lengthens the span when a third of it is over, by as much as is over: so
// the row is never further ahead of the clock than a span lasts. Whoever has the
// worker number next begins behind that. worked is always false.
func (s *Spans) Step(ctx context.Context) (worked bool, err error) {
	floor := max(millis(s.source.now()), s.have.from, 1)
	until := floor + s.lasts
	if s.have.until >= until-s.lasts/3 {
		return false, nil
	}
	begin := max(floor, s.have.until) // what is left of this span is kept
	cut, err := s.from.CutSegment(ctx, s.row, int64(begin), int64(until-begin))
	if err != nil {
		return false, fmt.Errorf("span of time for ids: %w", err)
	}
	if from := uint64(cut.First); from != s.have.until {
		s.have.from = from // another had it in between, or it is long ago
	}
	s.have.until = uint64(cut.End)
	own := s.have
	s.source.span.Store(&own)
	return false, nil
}
