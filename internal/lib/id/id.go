// Package id makes numbers that never come twice: ids of orders, which carry the
// logical shard of their user, and dense numbers out of segments.
//
// An id is 63 bits, so it is a positive int64 in SQL:
//
//	bits 62..22  41  milliseconds since 2025-01-01 UTC (until 2094-09-07)
//	bits 21..12  10  gene: the logical shard of the user, 0..1023
//	bits 11..4    8  worker, 0..255: one per minting process
//	bits  3..0    4  sequence within (millisecond, gene, worker), or, from a
//	                 marking source, four more bits of the user: their mark
//
// Invariants: a Source never mints the same id twice, and the ids of one gene
// ascend, whatever the clock does. When the 16 ids of a millisecond are used up
// the next millisecond is borrowed rather than waited for, up to MaxAhead.
// docs/decisions/0021-ids.md has the reasons and the figures.
//
// It refuses to know what an id names. The time in an id is about when, not a
// fact to decide by: borrowed milliseconds lie ahead.
package id

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/internal/lib/shard"
)

const (
	sequenceBits = 4
	workerBits   = 8
	geneBits     = shard.Bits
	timeBits     = 41

	workerShift = sequenceBits
	geneShift   = workerShift + workerBits
	timeShift   = geneShift + geneBits

	// Genes is the number of logical shards. It can never change: the gene is
	// part of every id given out.
	Genes = shard.Logical
	// Workers is how many processes may mint ids side by side.
	Workers = 1 << workerBits
)

const (
	// MaxAhead is how far ahead of its clock a source mints for those who can be
	// refused: 160,000 ids of one gene while the clock stands still.
	MaxAhead = 10 * time.Second
	// maxMarked is how far ahead of the clock ids with a mark may be, in ms.
	maxMarked = 1000
)

// epoch is 2025-01-01T00:00:00Z in Unix milliseconds.
const epoch = 1735689600000

var (
	// ErrMalformed: a text that Format never writes.
	ErrMalformed = errors.New("malformed id")
	// ErrAhead: another id would be too far ahead of the clock, or beyond the
	// span of time that the source has. Later there are ids again.
	ErrAhead = errors.New("ids are too far ahead of the clock")
)

// Source mints ids for one worker. It is safe for concurrent use and takes no
// lock: each gene has its own counter.
type Source struct {
	now    func() time.Time
	worker uint64
	marks  bool
	span   atomic.Pointer[span] // of time that is this source's, see Spans
	// last holds, per gene, milliseconds << 4 | sequence of the newest id, so
	// that a full sequence carries into the next millisecond by plain addition.
	last [Genes]atomic.Uint64
}

// span is from ≤ t < until, ms, all of time at first. Both ends change together:
// between two spans lies what is another's.
type span struct{ from, until uint64 }

// NewSource mints for worker (0..Workers-1; no two live processes may share
// one). The first ids lie after the millisecond of now() at this call: build
// the source after the clock was floored at the last logged time, and no id
// of an earlier run comes again even if the wall clock was set back.
func NewSource(worker int, now func() time.Time) *Source {
	if worker < 0 || worker >= Workers {
		panic(fmt.Sprintf("id: worker %d is not in 0..%d", worker, Workers-1))
	}
	s := &Source{now: now, worker: uint64(worker)}
	s.span.Store(&span{0, 1 << timeBits})
	used := millis(now())<<sequenceBits | (1<<sequenceBits - 1)
	for gene := range s.last {
		s.last[gene].Store(used)
	}
	return s
}

// NewMarkingSource is a source whose ids of users have the user's mark where
// others count, so that an id says of 16,383 in 16,384 users that it is not
// theirs. That leaves one id a millisecond for a gene, a million a second for
// all of them. What comes faster borrows milliseconds, and no more than a second
// of them: a gene that is so far ahead gets ids without a mark, or one user in a
// hurry would drive the time in ids away from the clock.
func NewMarkingSource(worker int, now func() time.Time) *Source {
	s := NewSource(worker, now)
	s.marks = true
	return s
}

// Mint mints an id for a user, above all that this source gave out for the
// user's gene before, or answers ErrAhead: it would be MaxAhead ahead of the
// clock or not within the span. Of many callers at once each is judged by
// itself, so none is beyond either.
func (s *Source) Mint(user string) (uint64, error) {
	own := s.span.Load()
	floor := max(millis(s.now()), own.from)
	return s.mint(shard.Hash(user), floor, min(floor+uint64(MaxAhead.Milliseconds()), own.until))
}

// For is Mint for those who cannot be refused: it borrows without a bound, and
// keeps to the beginning of the span only.
func (s *Source) For(user string) uint64 {
	n, _ := s.mint(shard.Hash(user), s.floor(), 1<<timeBits)
	return n
}

// Next is For by the gene (0..Genes-1) of a user. It never has a mark.
func (s *Source) Next(gene uint16) uint64 {
	if gene >= Genes {
		panic(fmt.Sprintf("id: gene %d is not in 0..%d", gene, Genes-1))
	}
	n, _ := s.count(gene, s.floor(), 1<<timeBits)
	return n
}

// floor is the earliest time of another id, ms.
func (s *Source) floor() uint64 { return max(millis(s.now()), s.span.Load().from) }

// mint makes an id of a user of a time from floor to before until.
func (s *Source) mint(hash, floor, until uint64) (uint64, error) {
	gene := uint16(shard.OfHash(hash))
	if !s.marks {
		return s.count(gene, floor, until)
	}
	last := &s.last[gene]
	for {
		old := last.Load()
		ms := max(old>>sequenceBits+1, floor)
		if ms > floor+maxMarked {
			return s.count(gene, floor, until)
		}
		if ms >= until {
			return 0, s.ahead(until)
		}
		// The whole millisecond is used up, for count too.
		if last.CompareAndSwap(old, ms<<sequenceBits|(1<<sequenceBits-1)) {
			return s.compose(ms, gene, markOf(hash)), nil
		}
	}
}

// count makes an id of the next number of a gene's sequence.
func (s *Source) count(gene uint16, floor, until uint64) (uint64, error) {
	last := &s.last[gene]
	for {
		old := last.Load()
		next := max(old+1, floor<<sequenceBits)
		if next>>sequenceBits >= until {
			return 0, s.ahead(until)
		}
		if last.CompareAndSwap(old, next) {
			return s.compose(next>>sequenceBits, gene, next&(1<<sequenceBits-1)), nil
		}
	}
}

// ahead is the error for a time that ends at until.
func (s *Source) ahead(until uint64) error {
	if until >= 1<<timeBits {
		panic("id: the 41 bits of time are used up")
	}
	return ErrAhead
}

func (s *Source) compose(ms uint64, gene uint16, low uint64) uint64 {
	return ms<<timeShift | uint64(gene)<<geneShift | s.worker<<workerShift | low
}

// millis is t in milliseconds since the epoch of ids; 0 for anything earlier.
func millis(t time.Time) uint64 { return uint64(max(0, t.UnixMilli()-epoch)) }

// GeneOf is the gene of a user, 0..Genes-1: shard.Of as it stands in an id.
func GeneOf(user string) uint16 { return uint16(shard.Of(user)) }

// markOf is the four bits of a user's hash below the gene.
func markOf(hash uint64) uint64 {
	return hash >> (64 - geneBits - sequenceBits) & (1<<sequenceBits - 1)
}

// Marked says whether an id has the gene and the mark of a user, as all do that
// a marking source minted for this user, and one in 16,384 of all others.
func Marked(id uint64, user string) bool {
	hash := shard.Hash(user)
	return Shard(id) == shard.OfHash(hash) && id&(1<<sequenceBits-1) == markOf(hash)
}

// Shard is the logical shard of the user that an id was minted for: for every
// id of For(user) it is shard.Of(user), 0..shard.Logical-1. Of a number that no
// source minted it is some shard, where nothing will be found.
func Shard(id uint64) int { return int(Gene(id)) }

// Gene is the gene in an id, 0..Genes-1.
func Gene(id uint64) uint16 { return uint16(id >> geneShift & (Genes - 1)) }

// Worker is the worker in an id, 0..Workers-1.
func Worker(id uint64) int { return int(id >> workerShift & (Workers - 1)) }

// Time is about when the id was minted, in UTC milliseconds.
func Time(id uint64) time.Time { return time.UnixMilli(int64(id>>timeShift) + epoch).UTC() }

// Format writes an id as decimal digits, as in JSON and URLs.
func Format(id uint64) string { return strconv.FormatUint(id, 10) }

// Parse reads what Format wrote and nothing else (no sign, no leading zero, at
// most 63 bits): one id has one text. Anything else is ErrMalformed.
func Parse(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || Format(n) != s {
		return 0, fmt.Errorf("%w: %.24q", ErrMalformed, s)
	}
	return n, nil
}
