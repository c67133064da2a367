package simdisk

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
)

// Kill is the disk as the next process finds it after this one was killed and
// the machine was not: everything that was written is there, and as uncertain
// as it was.
func (d *Disk) Kill() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := New()
	out.room = d.room
	out.dirs = maps.Clone(d.dirs)
	copies := map[*node]*node{}
	clone := func(n *node) *node {
		if n != nil && copies[n] == nil {
			copies[n] = n.clone()
		}
		return copies[n]
	}
	for name, n := range d.names {
		out.names[name] = clone(n)
	}
	for name, n := range d.durable {
		out.durable[name] = clone(n)
	}
	for _, l := range d.links {
		l.node = clone(l.node)
		out.links = append(out.links, l)
	}
	return out
}

// Chooser answers a number in 0..options-1. Option 0 is what is certainly on
// the disk, option 1 what was written last; from 2 on come torn sectors and
// versions between.
type Chooser func(options int) int

// Image is one disk that a power cut at this moment can leave; choose answers
// for each uncertain directory change, size and sector, in a fixed order. What
// is on it is durable.
func (d *Disk) Image(choose Chooser) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := New()
	out.room = d.room
	out.dirs = maps.Clone(d.dirs)
	names := maps.Clone(d.durable)
	for _, l := range d.links {
		if choose(2) == 1 {
			l.apply(names)
		}
	}
	settled := map[*node]*node{}
	for _, name := range slices.Sorted(maps.Keys(names)) { // in order: choose may count
		n := names[name]
		if settled[n] == nil {
			data := n.image(choose)
			settled[n] = &node{name: name, data: data, stable: bytes.Clone(data), sectors: map[int64]*sector{}}
		}
		out.names[name], out.durable[name] = settled[n], settled[n]
	}
	return out
}

// image is what a power cut can leave of a file.
func (n *node) image(choose Chooser) []byte {
	size := len(n.stable)
	if len(n.data) != size && choose(2) == 1 {
		size = len(n.data)
	}
	data := make([]byte, size)
	copy(data, n.stable)
	for _, i := range slices.Sorted(maps.Keys(n.sectors)) {
		from := int(i * Sector)
		if from >= size {
			continue
		}
		if options := n.options(i); len(options) > 1 {
			copy(data[from:min(from+Sector, size)], options[choose(len(options))])
		}
	}
	return data
}

// options are what one sector can hold: the old, the newest, the two torn in
// the middle either way round, and versions between. Equal ones count once.
func (n *node) options(i int64) (all [][]byte) {
	old, versions := cut(n.stable, i), n.sectors[i].versions
	newest := versions[len(versions)-1]
	add := func(b []byte) {
		if !slices.ContainsFunc(all, func(a []byte) bool { return bytes.Equal(a, b) }) {
			all = append(all, b)
		}
	}
	add(old)
	add(newest)
	add(slices.Concat(newest[:Sector/2], old[Sector/2:]))
	add(slices.Concat(old[:Sector/2], newest[Sector/2:]))
	for _, v := range versions {
		add(v)
	}
	return all
}

// Exhaustive is the number of uncertain things up to which Images leaves out
// no subset of them.
const Exhaustive = 10

// Uncertain counts directory changes, sizes and sectors that a power cut now
// may keep or lose.
func (d *Disk) Uncertain() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	nodes := map[*node]bool{}
	for _, n := range d.names {
		nodes[n] = true
	}
	for _, n := range d.durable {
		nodes[n] = true
	}
	count := len(d.links)
	for n := range nodes {
		if len(n.data) != len(n.stable) {
			count++
		}
		for i := range n.sectors {
			if len(n.options(i)) > 1 {
				count++
			}
		}
	}
	return count
}

// Images are the disks that a power cut at this moment can leave, with a label
// that says what was chosen. Up to ten uncertain things, every subset of them
// is old or new; then each sector by itself is torn or between, with all else
// old and with all else new. Above ten, all old, all new, and so many samples
// drawn from the seed.
func (d *Disk) Images(seed uint64, samples int) iter.Seq2[string, *Disk] {
	return func(yield func(string, *Disk) bool) {
		if d.Uncertain() > Exhaustive {
			d.sample(seed, samples, yield)
			return
		}
		if d.subsets(yield) {
			d.torn(yield)
		}
	}
}

// image is Image with a label. What is asked depends on what was answered (a
// file that is not there has no sectors), so pick learns the options as it goes.
func (d *Disk) image(yield func(string, *Disk) bool, pick func(at, options int) int) bool {
	at, label := 0, []byte{}
	image := d.Image(func(options int) int {
		c := pick(at, options)
		at++
		label = fmt.Append(label, c)
		return c
	})
	return yield(string(label), image)
}

// subsets walks the tree of old-or-new answers, the last question fastest.
func (d *Disk) subsets(yield func(string, *Disk) bool) bool {
	var answers []int
	for {
		asked := 0
		if !d.image(yield, func(at, _ int) int {
			if asked = at + 1; at == len(answers) {
				answers = append(answers, 0)
			}
			return answers[at]
		}) {
			return false
		}
		for answers = answers[:asked]; len(answers) > 0 && answers[len(answers)-1] == 1; {
			answers = answers[:len(answers)-1]
		}
		if len(answers) == 0 {
			return true
		}
		answers[len(answers)-1] = 1
	}
}

// torn gives each sector its other answers, one sector at a time.
func (d *Disk) torn(yield func(string, *Disk) bool) bool {
	for others := range 2 {
		var asked []int
		d.Image(func(options int) int { asked = append(asked, options); return others })
		for which, options := range asked {
			for c := 2; c < options; c++ {
				if !d.image(yield, func(at, _ int) int {
					if at == which {
						return c
					}
					return others
				}) {
					return false
				}
			}
		}
	}
	return true
}

func (d *Disk) sample(seed uint64, samples int, yield func(string, *Disk) bool) {
	for all := range 2 {
		if !d.image(yield, func(int, int) int { return all }) {
			return
		}
	}
	rng := rand.New(rand.NewPCG(seed, uint64(samples)))
	for range samples {
		choose := Random(rng)
		if !d.image(yield, func(_, options int) int { return choose(options) }) {
			return
		}
	}
}

// Random chooses by a source: each uncertain thing is new with the odds of one
// draw, else anything it can be.
func Random(rng *rand.Rand) Chooser {
	odds := rng.IntN(5)
	return func(options int) int {
		if rng.IntN(4) < odds {
			return 1
		}
		return rng.IntN(options)
	}
}
