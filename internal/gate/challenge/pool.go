package challenge

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// picture is what a challenge is made from, ready to be sent.
type picture struct {
	image, piece string // data: URLs
	answer, y    int
}

// maxUses bounds how many challenges one picture is used for. One is what it is
// used for as long as they are drawn as fast as they are asked for. In a flood a
// shop that asks nothing more would be worse than one that repeats itself: who
// keeps each picture with its answer gains at most the seven other uses.
const maxUses = 8

// pool keeps pictures of one kind: at most size that nobody has seen, and as many
// that somebody has.
type pool struct {
	size int

	mu     sync.Mutex
	fresh  []picture
	seen   []used
	next   int // of seen: the one to be used again, or to be given up, first
	counts PoolCount
}

type used struct {
	picture
	times int
}

// PoolCount is how one kind of pictures stands.
type PoolCount struct {
	Kind     string
	Fresh    int    // ready, seen by nobody
	Again    int    // seen, and good for more challenges
	Drawn    uint64 // since the start
	Given    uint64 // challenges handed out
	Repeated uint64 // of these, with a picture that was used before
	Lacking  uint64 // asked for when there was none
}

// take answers a picture that nobody has seen, or in their absence the one that
// was used longest ago.
func (p *pool) take() (picture, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.fresh) - 1; last >= 0 {
		got := p.fresh[last]
		p.fresh[last] = picture{}
		p.fresh = p.fresh[:last]
		p.keep(used{got, 1})
		p.counts.Given++
		return got, true
	}
	if len(p.seen) == 0 {
		p.counts.Lacking++
		return picture{}, false
	}
	p.next %= len(p.seen)
	at := &p.seen[p.next]
	got := at.picture
	if at.times++; at.times < maxUses {
		p.next++
	} else {
		last := len(p.seen) - 1
		*at, p.seen[last] = p.seen[last], used{}
		p.seen = p.seen[:last]
	}
	p.counts.Given++
	p.counts.Repeated++
	return got, true
}

// keep adds a picture to those that were seen, in place of another where they are
// as many as may be.
func (p *pool) keep(u used) {
	if len(p.seen) < p.size {
		p.seen = append(p.seen, u)
		return
	}
	p.next %= len(p.seen)
	p.seen[p.next] = u
	p.next++
}

func (p *pool) add(drawn picture) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fresh = append(p.fresh, drawn)
	p.counts.Drawn++
}

func (p *pool) count() PoolCount {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Fresh, c.Again = len(p.fresh), len(p.seen)
	return c
}

// Pace is the pause between two Steps: it bounds how much of a core is spent on
// pictures, which is then what one takes to draw of each Pace.
const Pace = 40 * time.Millisecond

// Step draws one picture, of the kind that there are fewer of, unless enough are
// ready. It always answers that it did not work, so that whoever calls it pauses
// after each. One caller at a time.
func (d *Desk) Step(context.Context) (worked bool, err error) {
	k, least := sliderKind, d.pools[sliderKind].count().Fresh
	if n := d.pools[arithmeticKind].count().Fresh; n < least {
		k, least = arithmeticKind, n
	}
	if least >= d.pools[k].size {
		return false, nil
	}
	drawn, err := d.draw(k)
	if err != nil {
		return false, fmt.Errorf("draw a challenge: %w", err)
	}
	d.pools[k].add(drawn)
	return false, nil
}

func (d *Desk) draw(k kind) (picture, error) {
	var seed [32]byte
	if _, err := io.ReadFull(d.random, seed[:]); err != nil {
		return picture{}, fmt.Errorf("no randomness: %w", err)
	}
	r := rand.New(rand.NewChaCha8(seed)) // what it draws cannot be foretold from what was seen
	if k == arithmeticKind {
		return drawSum(r)
	}
	if d.slider == nil {
		d.slider = newSlider()
	}
	return d.slider.draw(r)
}

// Counts are for metrics.
func (d *Desk) Counts() []PoolCount {
	counts := make([]PoolCount, kinds)
	for k := range counts {
		counts[k] = d.pools[k].count()
		counts[k].Kind = kindNames[k]
	}
	return counts
}

// dataURL is a picture in a text.
func dataURL(media string, content []byte) string {
	b := make([]byte, 0, len(media)+13+base64.StdEncoding.EncodedLen(len(content)))
	b = append(append(append(b, "data:"...), media...), ";base64,"...)
	return string(base64.StdEncoding.AppendEncode(b, content))
}
