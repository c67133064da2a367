package linear_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/storm/linear"
)

// What is pending is no promise, and may be lost.
func TestPending(t *testing.T) {
	f := func(name string, units int, want, text string) {
		t.Helper()
		got, err := linear.Check(script(t, units, 1, text))
		if err != nil {
			t.Fatal(err)
		}
		told := strings.Join(append(got.Violations, got.Doubts...), "\n")
		if (want == "") != (got.Verdict == linear.Legal) || !strings.Contains(told, want) {
			t.Errorf("%s: %s, want %q:\n%s", name, got, want, told)
		}
	}
	f("held", 1, "", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy bob k1 all_held
		8 9   buy ann k1 accepted a.0.1.1 held
		90 90 final ann k1 a.0.1.1 held`)
	f("refused", 1, "", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy bob k1 all_held
		8 9   order ann a.0.1.1 refused
		10 11 buy bob k2 accepted a.0.2.1 held
		90 90 final ann k1 a.0.1.1 refused
		90 90 final bob k2 a.0.2.1 held`)
	f("lost without a trace, and bought anew by the same key", 1, "", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		10 11 buy ann k1 accepted a.0.2.1 pending
		12 13 buy ann k1 accepted a.0.2.1 held
		90 90 final ann k1 a.0.2.1 held`)
	f("lost, and its key finds none free", 1, "", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		10 11 buy bob k1 accepted a.0.2.1 held
		12 13 buy ann k1 all_held
		90 90 final bob k1 a.0.2.1 held`)
	f("the limit may count it, and may not", 2, "", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy ann k2 limit_reached
		8 9   buy ann k2 accepted a.0.2.1 held
		90 90 final ann k2 a.0.2.1 held`)
	f("held, then refused", 1, "was promised and is refused in the end", `
		0 5   buy ann k1 accepted a.0.1.1 held
		90 90 final ann k1 a.0.1.1 refused`)
	f("shown as held, then as refused", 1, "shown as refused", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy ann k1 accepted a.0.1.1 held
		8 9   order ann a.0.1.1 refused`)
	f("refused, then pending again", 1, "a.0.1.1", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   order ann a.0.1.1 refused
		8 9   buy ann k1 accepted a.0.1.1 pending
		90 90 final ann k1 a.0.1.1 refused`)
	f("its key was refused, and yet it is held", 1, "key k1 was told all_held", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy ann k1 all_held
		90 90 final ann k1 a.0.1.1 held`)
	f("held, and gone", 1, "is not among the orders in the end", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy ann k1 accepted a.0.1.1 held
		90 90 final bob k1 a.0.1.7 refused`)
	f("two that are held by one key", 2, "key k1 got reservation a.0.2.1", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		6 7   buy ann k1 accepted a.0.1.1 held
		8 9   buy ann k1 accepted a.0.2.1 held`)
	f("oversold by what is held", 1, "was bought by", `
		0 5   buy ann k1 accepted a.0.1.1 pending
		0 5   buy bob k1 accepted a.0.1.2 pending
		8 9   buy ann k1 accepted a.0.1.1 held
		8 9   buy bob k1 accepted a.0.1.2 held`)
}

// Over several buckets the sums are judged.
func TestBuckets(t *testing.T) {
	f := func(name, want, text string) {
		t.Helper()
		h := script(t, 2, 1, text)
		h.Buckets = 2
		got, err := linear.CheckWith(h, linear.Options{Stale: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		told := strings.Join(append(got.Violations, got.Doubts...), "\n")
		if (want == "") != (got.Verdict == linear.Legal) || !strings.Contains(told, want) {
			t.Errorf("%s: %s, want %q:\n%s", name, got, want, told)
		}
	}
	const both = `
		0 5   buy ann k1 accepted a.0.1.1 held
		0 5   buy bob k1 accepted a.1.1.1 held`
	const sold = both + `
		6 6   pay ann a.0.1.1
		6 6   pay bob a.1.1.1
		10 11 order ann a.0.1.1 confirmed
		10 11 order bob a.1.1.1 confirmed`
	f("two of two", "", both)
	f("three of two", "was bought by", both+`
		0 5 buy eve k1 accepted a.0.1.2 held`)
	f("three buckets", "3 buckets", `
		0 5   buy ann k1 accepted a.0.1.1 held
		0 5   buy bob k1 accepted a.2.1.1 held
		10 15 cancel ann a.0.1.1 released
		20 25 buy eve k1 accepted a.1.1.1 held`)
	f("a unit that came back a moment ago is missed", "", both+`
		10 11  cancel ann a.0.1.1 released
		50 60  buy eve k1 all_held
		70 80  buy eve k1 accepted a.1.1.2 held`)
	f("one that came back long ago is not", "eve (key k1) was told all_held", both+`
		10 11   cancel ann a.0.1.1 released
		500 510 buy eve k1 all_held`)
	f("levels that are a moment old", "", both+`
		10 11   cancel ann a.0.1.1 released
		100 105 buy eve k1 all_held`)
	f("free all the while", "eve (key k1) was told all_held", `
		0 5   buy ann k1 accepted a.0.1.1 held
		10 15 buy eve k1 all_held`)
	f("a slow refusal proves nothing", "", `
		0 5    buy ann k1 accepted a.0.1.1 held
		10 300 buy eve k1 all_held`)
	f("sold_out", "", sold+`
		20 21 buy eve k1 sold_out`)
	f("sold_out with one on its way", "eve (key k1) was told sold_out", `
		0 5   buy ann k1 accepted a.0.1.1 held
		6 6   pay ann a.0.1.1
		10 11 order ann a.0.1.1 confirmed
		20 21 buy eve k1 sold_out
		30 31 buy kim k1 accepted a.1.1.1 held`)
	f("a slow sold_out is one all the same", "eve (key k1) was told sold_out", both+`
		20 500 buy eve k1 sold_out`)
	f("counts of several moments", "", sold+`
		7 12  counts 1 1 1
		20 21 counts 0 0 2`)
	f("counts that miss a sold one", "the counts of s were read", sold+`
		20 21 counts 0 1 1`)
	f("counts that invent a sold one", "the counts of s were read", both+`
		20 21 counts 0 1 1`)
}

// While a part is away the ledger may learn of ends late.
func TestTroubles(t *testing.T) {
	f := func(want linear.Verdict, from, to string) {
		t.Helper()
		h := script(t, 1, 1, `
			0 1     buy ann k1 accepted r1 held
			100 101 cancel ann r1 released
			150 151 buy bob k1 all_held
			152 153 buy ann k1 accepted r1 held`)
		h.Troubles = []linear.Span{{From: ms(t, from), To: ms(t, to)}}
		if got, err := linear.Check(h); err != nil || got.Verdict != want {
			t.Errorf("%s to %s: %s %q %v", from, to, got, got.Violations, err)
		}
	}
	f(linear.Legal, "90", "160")
	f(linear.Illegal, "90", "120")
	f(linear.Illegal, "110", "160")
}

// buckets is a ledger in several parts that decides as a real one does: by sums
// of counts read one bucket after the other.
type buckets struct {
	dice             *rand.Rand
	free, held, sold []int
	out, in          []int
	now              int64
	moving           int // bucket that gets the unit in transit, -1 = none
	ops, holders     []linear.Op
	buyers           int
	lie              bool
}

func (b *buckets) tick() int64 { b.now += 1 + int64(b.dice.IntN(int(time.Millisecond))); return b.now }

// happen makes one thing happen somewhere, unseen by whoever is reading.
func (b *buckets) happen() {
	n := len(b.free)
	at := b.dice.IntN(n)
	switch b.dice.IntN(5) {
	case 0, 1:
		if b.free[at] > 0 {
			b.free[at]--
			b.held[at]++
			b.buyers++
			call := b.tick()
			op := linear.Op{What: linear.Buy, User: fmt.Sprint("u", b.buyers), Key: "k", SKU: "s", Call: call, Return: b.tick(), Answer: linear.Accepted,
				Reservation: fmt.Sprintf("a.%d.1.%d", at, b.buyers), State: linear.Held}
			b.ops, b.holders = append(b.ops, op), append(b.holders, op)
		}
	case 2:
		if len(b.holders) > 0 {
			i := b.dice.IntN(len(b.holders))
			op := b.holders[i]
			b.holders = slices.Delete(b.holders, i, i+1)
			from := int(op.Reservation[2] - '0')
			b.held[from]--
			if b.dice.IntN(2) == 0 {
				b.free[from]++
				b.ops = append(b.ops, linear.Op{What: linear.Cancel, User: op.User, Reservation: op.Reservation, Call: b.tick(), Return: b.tick(), State: linear.Released})
				return
			}
			b.sold[from]++
			b.ops = append(b.ops, linear.Op{What: linear.Pay, User: op.User, Reservation: op.Reservation, Call: b.tick()},
				linear.Op{What: linear.Order, User: op.User, Reservation: op.Reservation, Call: b.tick(), Return: b.tick(), State: linear.Confirmed})
		}
	case 3:
		if b.moving < 0 && b.free[at] > 0 {
			b.free[at]--
			b.out[at]++
			b.moving = b.dice.IntN(n)
		}
	case 4:
		if b.moving >= 0 {
			b.free[b.moving]++
			b.in[b.moving]++
			b.moving = -1
		}
	}
}

// ask reads bucket after bucket while things happen, and says what follows.
func (b *buckets) ask() {
	call := b.tick()
	free, held, sold, transit := 0, 0, 0, 0
	for i := range b.free {
		for range b.dice.IntN(3) {
			b.happen()
		}
		free, held, sold, transit = free+b.free[i], held+b.held[i], sold+b.sold[i], transit+b.out[i]-b.in[i]
	}
	op := linear.Op{What: linear.Buy, User: "x", Key: "k", SKU: "s", Call: call, Return: b.tick()}
	switch {
	case b.lie || free == 0 && transit == 0 && held > 0:
		op.Answer, b.lie = "all_held", false
	case free == 0 && transit == 0:
		op.Answer = "sold_out"
	default:
		op = linear.Op{What: linear.Counts, SKU: "s", Call: call, Return: op.Return, Free: free, Held: held, Confirmed: sold}
	}
	b.ops = append(b.ops, op)
}

func someBuckets(seed uint64, n int) *buckets {
	dice := rand.New(rand.NewPCG(seed, 2))
	b := &buckets{dice: dice, free: make([]int, n), held: make([]int, n), sold: make([]int, n), out: make([]int, n), in: make([]int, n), moving: -1}
	for i := range n {
		b.free[i] = 1 + dice.IntN(2)
	}
	return b
}

func (b *buckets) units() (n int) {
	for i := range b.free {
		n += b.free[i] + b.held[i] + b.sold[i]
	}
	return n
}

// Whatever a ledger in buckets does and says by honest sums passes, and all_held
// of units that are free for good does not.
func TestSumsAreSound(t *testing.T) {
	t.Parallel()
	refusals := 0
	for seed := range uint64(1500) {
		b := someBuckets(seed, 2+int(seed%3))
		h := linear.History{Activity: "a", PerUser: 1, Items: []linear.Item{{SKU: "s", Units: b.units()}}, Buckets: len(b.free)}
		for range 40 {
			b.happen()
			b.ask()
		}
		for _, op := range b.ops {
			if op.Answer == "all_held" || op.Answer == "sold_out" {
				refusals++
			}
		}
		h.Ops = slices.Values(b.ops)
		if got, err := linear.Check(h); err != nil || got.Verdict != linear.Legal {
			t.Fatalf("seed %d: %s %q %q %v", seed, got, got.Violations, got.Doubts, err)
		}
	}
	if refusals < 1000 {
		t.Errorf("%d refusals: this shows too little", refusals)
	}
	for seed := range uint64(50) {
		b := someBuckets(seed, 3)
		h := linear.History{Activity: "a", PerUser: 1, Items: []linear.Item{{SKU: "s", Units: b.units() + 50}}, Buckets: 3}
		b.free[0] += 50
		for range 20 {
			b.happen()
		}
		b.lie = true
		b.ask()
		for range 20 {
			b.happen()
		}
		h.Ops = slices.Values(b.ops)
		if got, err := linear.Check(h); err != nil || got.Verdict != linear.Illegal {
			t.Fatalf("seed %d, with a lie: %s %v", seed, got, err)
		}
	}
}
