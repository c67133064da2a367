package linear

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/anishathalye/porcupine"
)

// part is a partition to be searched: a model with the state S, and its
// operations in segments, one after the other in time.
type part[S fmt.Stringer] struct {
	start    S
	timeout  time.Duration
	segments int
	// slice answers the operations of segments from..to-1, when those before
	// have left start. An operation that goes on after them need not have its
	// place there; apply then answers the state unchanged.
	slice func(from, to int, start S) []porcupine.Operation
	// loose answers a state at the beginning of a segment from which more is
	// possible than from any that can really be there. Not asked for segment 0.
	loose    func(segment int) S
	apply    func(S, any) (S, bool) // must not change its argument
	same     func(a, b any) bool
	hash     func(any) uint64
	describe func(any) string
	draw     bool // also when it is legal
	terse    bool // explain and draw nothing
}

// finding is what a search came to.
type finding struct {
	verdict Verdict
	why     string // Illegal: what has no place; NotChecked: what ran out
	picture *picture
}

// picture draws a partition, or as much of it as was searched at once.
type picture struct {
	model porcupine.Model
	info  porcupine.LinearizationInfo
}

// Bounds of a search.
const (
	memory    = 512 << 20 // bytes of porcupine's record of what it has tried
	perRecord = 400       // bytes of a record beside its set of operations
)

// searchInParts searches one segment after the other, each from the state in
// which the order found for the one before ended. That is one of several
// possible states. So a segment without an order from there is searched from
// the loose state, too: if that has none, the history is illegal. If it has
// one, nothing is known, and both searches begin earlier: a segment before, then
// two, then four, in the end from the beginning, where there is one state only.
func searchInParts[S fmt.Stringer](p part[S]) finding {
	deadline := time.Now().Add(p.timeout)
	states := make([]S, p.segments+1)
	states[0] = p.start
	for i := range p.segments {
		end, found := p.reach(i, states, deadline)
		if found.verdict != Legal {
			return found
		}
		states[i+1] = end
	}
	found := finding{verdict: Legal}
	if n := p.segments; n > 0 && p.draw && !p.terse {
		found.picture = p.explain(p.slice(n-1, n, states[n-1]), states[n-1]).picture
	}
	return found
}

// reach finds a state at the end of segment i.
func (p part[S]) reach(i int, states []S, deadline time.Time) (end S, found finding) {
	for from, back := i, 1; ; from, back = max(from-back, 0), 2*back {
		start := states[from]
		ops := p.slice(from, i+1, start)
		if found, end = p.search(ops, start, time.Until(deadline)); found.verdict == Legal {
			return end, found
		}
		if from > 0 && found.verdict == Illegal {
			start = p.loose(from)
			ops = p.slice(from, i+1, start)
			if found, _ = p.search(ops, start, time.Until(deadline)); found.verdict == Legal {
				continue
			}
		}
		if p.terse {
			return end, found
		}
		stuck := p.explain(ops, start)
		found.picture = stuck.picture
		if found.why != "" {
			found.why += "; where it stopped: "
		}
		found.why += stuck.why
		return end, found
	}
}

// search asks porcupine. After Legal, end is the state behind the order found.
func (p part[S]) search(ops []porcupine.Operation, start S, timeout time.Duration) (found finding, end S) {
	if timeout <= 0 {
		return finding{verdict: NotChecked, why: "time ran out"}, end
	}
	end = start
	left := memory / (len(ops)/8 + perRecord)
	m := p.model(start, func(s S) bool {
		end = s // the last step taken is the last of the order found
		left--
		return left > 0
	})
	switch porcupine.CheckOperationsTimeout(m, ops, timeout) {
	case porcupine.Ok:
		return finding{verdict: Legal}, end
	case porcupine.Illegal:
		if left > 0 {
			return finding{verdict: Illegal}, end
		}
		return finding{verdict: NotChecked, why: fmt.Sprintf("memory ran out over %d operations", len(ops))}, end
	}
	return finding{verdict: NotChecked, why: fmt.Sprintf("time ran out over %d operations", len(ops))}, end
}

// model for porcupine; goOn sees each state reached and may end the search.
func (p part[S]) model(start S, goOn func(S) bool) porcupine.Model {
	stopped := false
	return porcupine.Model{
		Init: func() any { return start },
		Step: func(state, input, _ any) (bool, any) {
			if stopped {
				return false, state
			}
			next, ok := p.apply(state.(S), input)
			if ok {
				stopped = !goOn(next)
			}
			return ok, next
		},
		Equal:             p.same,
		Hash:              p.hash,
		DescribeOperation: func(input, _ any) string { return p.describe(input) },
		DescribeState:     func(state any) string { return state.(S).String() },
	}
}

// explainTime bounds the second search, which keeps what the first did not.
const explainTime = 2 * time.Second

// explain searches again and tells where the longest order found got stuck.
func (p part[S]) explain(ops []porcupine.Operation, start S) finding {
	left := memory / (len(ops)/8 + perRecord)
	m := p.model(start, func(S) bool { left--; return left > 0 })
	_, info := porcupine.CheckOperationsVerbose(m, ops, explainTime)
	var longest []porcupine.Operation
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(longest) {
			longest = order
		}
	}
	state := start
	placed := map[any]bool{}
	for _, op := range longest {
		state, _ = p.apply(state, op.Input)
		placed[op.Input] = true
	}
	f := finding{picture: &picture{p.model(start, func(S) bool { return true }), info}}
	var stuck *porcupine.Operation
	for i := range ops {
		if !placed[ops[i].Input] && (stuck == nil || ops[i].Return < stuck.Return) {
			stuck = &ops[i]
		}
	}
	if stuck != nil {
		f.why = fmt.Sprintf("%s: this has no place behind what came before, which left %s", p.describe(stuck.Input), state)
	}
	return f
}

// take adds what was found about a partition to the result.
func (r *Result) take(f finding, name string) {
	switch f.verdict {
	case Illegal:
		r.violate(name + ": " + f.why)
	case NotChecked:
		r.doubt("%s: %s", name, f.why)
	}
	if f.picture != nil && (f.verdict != Legal || len(r.pictures) == 0) && len(r.pictures) < maxSentences {
		r.pictures = append(r.pictures, *f.picture)
	}
}

// ErrNoPicture: nothing was searched.
var ErrNoPicture = errors.New("there is nothing to draw")

// Draw writes porcupine's page about the first partition that is illegal, or
// was not checked, or else about the end of the first SKU's history. The lines
// are one for each class of movement and each kind of look; the times in the
// margin are places in the order of events, the real ones stand in the text.
func (r Result) Draw(w io.Writer) error {
	if len(r.pictures) == 0 {
		return ErrNoPicture
	}
	last := r.pictures[0]
	if len(r.pictures) > 1 && len(r.Violations)+len(r.Doubts) > 0 {
		last = r.pictures[1]
	}
	return porcupine.Visualize(last.model, last.info, w)
}
