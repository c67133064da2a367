package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"sluice/test/kill/point"
)

// How a run is divided.
const (
	perStorm  = 25 // kills in one sale
	perHouse  = 2  // sales one after the other on one data directory
	randomOf3 = 1  // of three kills, so many at random and not at a point
)

// life is one start of the server and how it is to end.
type life struct {
	at    *place // nil: at random
	n     int    // at which pass
	after time.Duration
	// after is the age of the process from which passes count, or at which it is
	// killed when the kill is random.
	term bool // SIGTERM at that age first
	lag  time.Duration
	// lag is from SIGTERM to a random kill.
}

// env is what the process is started with.
func (l life) env() []string {
	if l.at == nil {
		return nil
	}
	after := l.after
	if l.at.when != serving {
		after = 0
	}
	return []string{point.Variable + "=" + point.Arm(l.at.name, l.n, after)}
}

// planner draws what happens in each storm. A storm is a function of the seed
// and its number alone, so that one of a thousand can be had again.
type planner struct {
	seed   uint64
	points *regexp.Regexp // nil = all
	kills  int            // of one storm, without those of founding
}

// chosen are the points of some times of life that the filter lets pass.
func (p planner) chosen(times ...when) (some []*place) {
	for i := range places {
		for _, w := range times {
			if places[i].when == w && (p.points == nil || p.points.MatchString(places[i].name)) {
				some = append(some, &places[i])
			}
		}
	}
	return some
}

// turn is the i-th of an endless walk through the points, each round of which
// visits all of them in an order of its own.
func (p planner) turn(points []*place, i int) *place {
	round := rand.New(rand.NewPCG(p.seed, uint64(i/len(points))))
	return points[round.Perm(len(points))[i%len(points)]]
}

// dice of a storm, apart from those of the storm itself.
func (p planner) dice(storm int, what uint64) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed+what<<32, uint64(storm)))
}

func between(d *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(d.Float64()*float64(high-low))
}

// founding is how the first lives on an empty directory end: nobody shops yet.
func (p planner) founding(house int) (lives []life) {
	d := p.dice(house, 1)
	if points := p.chosen(founding); len(points) > 0 {
		lives = append(lives, life{at: p.turn(points, house), n: 1})
	}
	return append(lives, life{after: between(d, time.Millisecond, 120*time.Millisecond)})
}

// lives of one storm: of each three, two end at a point and one at random. What
// goes before the first of them, the life in which the sale was put up, is
// ended at random too.
func (p planner) lives(storm int) (lives []life) {
	d := p.dice(storm, 2)
	points := p.chosen(serving, starting, stopping)
	for i := range p.kills {
		switch {
		case len(points) == 0 || i%3 < randomOf3:
			lives = append(lives, p.random(d))
		default:
			at := p.turn(points, storm*(p.kills-p.kills/3)+i-i/3)
			lives = append(lives, life{at: at, n: 1 + d.IntN(at.most), after: between(d, 250*time.Millisecond, 800*time.Millisecond), term: at.when == stopping})
		}
	}
	return lives
}

// random is a kill at any time: while the server starts, while it serves, or
// while it stops.
func (p planner) random(d *rand.Rand) life {
	switch n := d.IntN(10); {
	case n < 3:
		return life{after: between(d, 0, 250*time.Millisecond)}
	case n < 9:
		return life{after: between(d, 250*time.Millisecond, 1500*time.Millisecond)}
	default:
		return life{after: between(d, 400*time.Millisecond, 900*time.Millisecond), term: true, lag: between(d, 0, 60*time.Millisecond)}
	}
}

func (l life) String() string {
	if l.at == nil {
		return fmt.Sprintf("at random, %s old", l.after.Round(time.Millisecond))
	}
	return fmt.Sprintf("pass %d of %q, %s old", l.n, l.at.name, l.after.Round(time.Millisecond))
}
