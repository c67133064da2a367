package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// Suspect is suspect with the signal's name.
func (s *Suspicion) Suspect(now time.Time, f *Facts, by *Thresholds) (signal string, yes bool) {
	if at, yes := s.suspect(now, f, by); yes {
		return signalNames[at], true
	}
	return "", false
}

// byDefault are the thresholds of a rule that says nothing of them.
func byDefault(signals ...string) *Thresholds {
	t := (&Challenge{Signals: signals}).Thresholds()
	return &t
}

func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// caught lets so many attempts of one user pass, with the gaps that gap draws,
// and says whether any of them was suspected.
func caught(s *Suspicion, f *Facts, start time.Time, attempts int, gap func() time.Duration) (signal string, yes bool) {
	now := start
	for range attempts {
		s.Observe(now, f)
		if signal, yes := s.Suspect(now, f, byDefault()); yes {
			return signal, true
		}
		now = now.Add(gap())
	}
	return "", false
}

// People think for a time that is log-normal; programs wait for a time that is
// the same, or nearly so. Less than 1 % of the people are suspected in 40 attempts
// each, and more than 95 % of the programs in 20.
func TestPeopleAreNotSuspectedAndProgramsAre(t *testing.T) {
	r := rand.New(rand.NewPCG(20, 26))
	const runs = 4000
	people := func(median time.Duration, sigma float64) func() time.Duration {
		return func() time.Duration { return time.Duration(float64(median) * math.Exp(sigma*r.NormFloat64())) }
	}
	program := func(every time.Duration, by float64) func() time.Duration {
		// The way through the network takes a few milliseconds more or less.
		return func() time.Duration {
			return time.Duration(float64(every)*(1+by*(2*r.Float64()-1))) + time.Duration(r.ExpFloat64()*float64(2*time.Millisecond))
		}
	}
	share := func(attempts int, gap func() time.Duration) float64 {
		s, suspected := NewSuspicion(noon), 0
		for i := range runs {
			// Each from an address of his own, at any time of the day.
			f := &Facts{User: fmt.Sprint("u", i), IP: address(i)}
			if _, yes := caught(s, f, noon.Add(time.Duration(r.Int64N(int64(24*time.Hour)))), attempts, gap); yes {
				suspected++
			}
		}
		return float64(suspected) / runs
	}
	f := func(name string, attempts int, gap func() time.Duration, least, most float64) {
		t.Helper()
		is := share(attempts, gap)
		t.Logf("%-46s %6.2f %% suspected", name, 100*is)
		if is < least || is > most {
			t.Errorf("%s: %.2f %% suspected, want %g..%g %%", name, 100*is, 100*least, 100*most)
		}
	}
	f("a person who presses at once (0.4 s, σ 0.5)", 40, people(400*time.Millisecond, 0.5), 0, 0.01)
	f("a person who thinks (2 s, σ 0.6)", 40, people(2*time.Second, 0.6), 0, 0.01)
	f("a person who reads (8 s, σ 0.9)", 40, people(8*time.Second, 0.9), 0, 0.01)
	f("a program each 100 ms", 20, program(100*time.Millisecond, 0), 0.95, 1)
	f("a program each 50 ms ± 10 %", 20, program(50*time.Millisecond, 0.1), 0.95, 1)
	f("a program each second ± 20 %", 20, program(time.Second, 0.2), 0.95, 1)
	f("a program each 10 s ± 5 %", 20, program(10*time.Second, 0.05), 0.95, 1)
	f("a program that sends all at once", 20, func() time.Duration { return 0 }, 0.95, 1)
}

// What is judged are the latest gaps: a pause hides a program for as many attempts
// as it takes to see them again, and what a person did yesterday does not count.
func TestRegularity(t *testing.T) {
	f := func(name string, want int, gaps ...time.Duration) {
		t.Helper()
		s, facts := NewSuspicion(noon), &Facts{User: "ann"}
		now, at := noon, 0
		for i, gap := range append([]time.Duration{0}, gaps...) {
			now = now.Add(gap)
			s.Observe(now, facts)
			if _, yes := s.Suspect(now, facts, byDefault("regular")); yes {
				at = i + 1
				break
			}
		}
		if at != want {
			t.Errorf("%s: suspected at attempt %d, want %d", name, at, want)
		}
	}
	every := func(gap time.Duration, n int) (gaps []time.Duration) {
		for range n {
			gaps = append(gaps, gap)
		}
		return gaps
	}
	const ms = time.Millisecond
	f("nine attempts are enough", 9, every(100*ms, 20)...)
	f("eight are not", 0, every(100*ms, 7)...)
	f("at once", 9, every(0, 20)...)
	f("each minute", 9, every(time.Minute, 20)...)
	f("each longer than a visit", 0, every(66*time.Second, 20)...)
	f("a visit ends and another begins", 16, append(append(every(100*ms, 6), 2*time.Minute), every(100*ms, 20)...)...)
	f("a pause within a visit", 23, append(append(every(100*ms, 5), 30*time.Second), every(100*ms, 20)...)...)
	f("backwards is at once", 0, 100*ms, -50*ms, 300*ms, 20*ms, 200*ms, 40*ms, 100*ms, 10*ms, 500*ms)

	s, facts := NewSuspicion(noon), &Facts{User: "ann"}
	for i := range 20 {
		s.Observe(noon.Add(time.Duration(i)*100*ms), facts)
	}
	if _, yes := s.Suspect(noon.Add(3*time.Second), facts, byDefault()); !yes {
		t.Error("a program is not suspected a second later")
	}
	if _, yes := s.Suspect(noon.Add(2*time.Minute), facts, byDefault()); yes {
		t.Error("suspected after the visit")
	}
	if _, yes := s.Suspect(noon.Add(3*time.Second), facts, byDefault("accounts", "headless")); yes {
		t.Error("suspected by a signal that was not asked about")
	}
}

// Many accounts behind one address are told from a family, whatever the order;
// an address is forgiven within ten minutes.
func TestAccountsBehindAnAddress(t *testing.T) {
	f := func(name string, users, addresses int, over time.Duration, most int, want bool) {
		t.Helper()
		s, by := NewSuspicion(noon), (&Challenge{Accounts: most, Signals: []string{"accounts"}}).Thresholds()
		var now time.Time
		for i := range users {
			now = noon.Add(over * time.Duration(i) / time.Duration(users))
			for range 3 { // the same account again is no other account
				s.Observe(now, &Facts{User: fmt.Sprint("u", i), IP: address(i % addresses)})
			}
		}
		signal, yes := s.Suspect(now, &Facts{User: "x", IP: address(0)}, &by)
		if yes != want || yes && signal != "accounts" {
			t.Errorf("%s: %q, %v", name, signal, yes)
		}
	}
	f("a family", 6, 1, time.Minute, 0, false)
	f("a dormitory", 40, 1, time.Minute, 0, false)
	f("a farm", 80, 1, time.Minute, 0, true)
	f("a farm, slowly", 80, 1, 5*time.Minute, 0, true)
	f("over an hour", 80, 1, time.Hour, 0, false)
	f("each its own address", 5000, 5000, time.Minute, 0, false)
	f("all a rule allows", 300, 1, time.Minute, 400, false)
	f("more than a rule allows", 600, 1, time.Minute, 400, true)
	f("two are one too many", 12, 1, time.Minute, 1, true)
	f("one", 1, 1, time.Minute, 1, false)

	s := NewSuspicion(noon)
	line := netip.MustParsePrefix("2001:db8:1:2::/64").Addr().As16()
	for i := range 200 {
		line[15] = byte(i) // one line has all addresses of its /64
		s.Observe(noon, &Facts{User: fmt.Sprint("u", i), IP: netip.AddrFrom16(line)})
	}
	ask := func(ip string, at time.Duration) bool {
		_, yes := s.Suspect(noon.Add(at), &Facts{User: "x", IP: netip.MustParseAddr(ip)}, byDefault())
		return yes
	}
	if !ask("2001:db8:1:2:ffff::1", 0) || ask("2001:db8:1:3::1", 0) {
		t.Error("IPv6 does not go by /64")
	}
	if !ask("2001:db8:1:2::1", 5*time.Minute) || ask("2001:db8:1:2::1", 10*time.Minute) {
		t.Error("not forgotten when it should be")
	}
	if _, yes := s.Suspect(noon, &Facts{User: "x"}, byDefault()); yes {
		t.Error("suspected without an address")
	}
}

// A program that says what it is, is suspected at its first attempt.
func TestHintsAreSuspected(t *testing.T) {
	s := NewSuspicion(noon)
	f := func(hints uint8, by *Thresholds, want string) {
		t.Helper()
		if signal, yes := s.Suspect(noon, &Facts{User: "ann", Hints: hints}, by); signal != want || yes != (want != "") {
			t.Errorf("%04b: %q, %v", hints, signal, yes)
		}
	}
	f(0, byDefault(), "")
	f(HintTool, byDefault(), "headless")
	f(HintNoLanguage, byDefault(), "headless")
	f(HintHeadless|HintNoLanguage, byDefault("headless"), "headless")
	f(HintHeadless, byDefault("regular", "accounts"), "")
}

// A million users and addresses that are made up need no more memory than the
// tables have, and do not make suspects of people.
func TestSuspicionIsBounded(t *testing.T) {
	s := NewSuspicion(noon)
	size := func() (bytes uint64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := size()
	r := rand.New(rand.NewPCG(1, 2))
	users := make([]byte, 16)
	suspected := 0
	const hex = "0123456789abcdef"
	for i := range 1_000_000 {
		for j := range users {
			users[j] = hex[r.Uint32()%16]
		}
		f := &Facts{User: unsafe.String(&users[0], len(users)), IP: netip.AddrFrom4([4]byte{1, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})}
		now := noon.Add(time.Duration(i) * 50 * time.Microsecond)
		s.Observe(now, f)
		if _, yes := s.Suspect(now, f, byDefault()); yes {
			suspected++
		}
	}
	if after := size(); after > before+1<<20 {
		t.Errorf("grew by %d bytes", after-before)
	}
	if suspected > 10 {
		t.Errorf("%d of a million strangers were suspected", suspected)
	}
	if is := len(s.people)*int(unsafe.Sizeof(person{})) + len(s.networks)*int(unsafe.Sizeof(neighbours{})); is > 16<<20 {
		t.Errorf("the tables have %d bytes", is)
	}
	// Among all those, one who comes regularly is still known.
	f := &Facts{User: "ann"}
	for i := range 12 {
		s.Observe(noon.Add(time.Minute+time.Duration(i)*100*time.Millisecond), f)
	}
	if _, yes := s.Suspect(noon.Add(61*time.Second+100*time.Millisecond), f, byDefault()); !yes {
		t.Error("a program was not found among a million strangers")
	}
	runtime.KeepAlive(s)
}

// Of places that are all taken, the one unused longest is given away.
func TestSuspicionForgetsTheOldest(t *testing.T) {
	s := newSuspicion(1, 1, noon)
	regular := func(user string, from time.Time) {
		for i := range 12 {
			s.Observe(from.Add(time.Duration(i)*100*time.Millisecond), &Facts{User: user})
		}
	}
	known := func(user string, want bool, now time.Time) {
		t.Helper()
		if _, yes := s.Suspect(now, &Facts{User: user}, byDefault()); yes != want {
			t.Errorf("%s: known %v", user, yes)
		}
	}
	for i, user := range []string{"a", "b", "c", "d"} {
		regular(user, noon.Add(time.Duration(i)*2*time.Second))
	}
	now := noon.Add(8 * time.Second)
	s.Observe(now, &Facts{User: "a"}) // not the oldest any more, and no longer regular
	s.Observe(now, &Facts{User: "e"})
	known("b", false, now)
	known("c", true, now)
	known("d", true, now)
	known("e", false, now)
}

// Requests of many at once neither race nor wait for one another for long.
func TestSuspicionTogether(t *testing.T) {
	s := newSuspicion(64, 16, noon)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 5000 {
				f := &Facts{User: fmt.Sprint("u", i%100), IP: address(i % 40)}
				s.Observe(noon.Add(time.Duration(i*g)*time.Millisecond), f)
				s.Suspect(noon.Add(time.Duration(i)*time.Millisecond), f, byDefault())
			}
		})
	}
	all.Wait()
}

// A request comes with its facts in the cache, and finds its places out of it.
func BenchmarkSuspicion(b *testing.B) {
	s, by := NewSuspicion(noon), byDefault()
	names := make([]string, 1<<16)
	for i := range names {
		names[i] = fmt.Sprint("user-", i)
		s.Observe(noon, &Facts{User: names[i], IP: address(i / 4)})
	}
	now, i, facts := noon, 0, &Facts{}
	step := func() *Facts {
		now, i = now.Add(time.Microsecond), i+1
		at := i * 0x9e3779b1 >> 8 & (len(names) - 1)
		facts.User, facts.IP = names[at], address(at/4)
		return facts
	}
	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				b.Fatalf("%v allocations", n)
			}
			for b.Loop() {
				f()
			}
		})
	}
	run("observe", func() { s.Observe(now, step()) })
	run("suspect", func() { s.Suspect(now, step(), by) })
	f := &Facts{User: "ann", IP: address(1)}
	run("observe one", func() { s.Observe(now, f) })
	run("suspect one", func() { s.Suspect(now, f, by) })
}
