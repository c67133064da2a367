package linear_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/storm/linear"
)

// script reads a history written by hand, an operation a line: when it was
// asked for and answered, in ms ("-" = never), and what it was:
//
//	0 5  buy  ann k1 accepted r1 [held]   a purchase, or a replay of its key
//	0 5  buy  ann k1 sold_out
//	0 -  buy  ann k1 unknown
//	0 5  cancel ann r1 [released]         no state: it was not answered with one
//	0 5  pay  ann r1
//	0 5  order ann r1 confirmed
//	0 5  counts 1 0 1                     free, held, confirmed
//	9 9  final ann k1 r1 confirmed
//
// Units are of the SKU "s". Nothing expires before 1,000 ms.
func script(t *testing.T, units, perUser int, text string) linear.History {
	t.Helper()
	h := linear.History{Activity: "a", PerUser: perUser, Items: []linear.Item{{SKU: "s", Units: units}}}
	var ops []linear.Op
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		w = append(w, "", "", "", "")
		op := linear.Op{Call: ms(t, w[0]), What: linear.What(w[2])}
		if w[1] != "-" {
			op.Return = ms(t, w[1])
		}
		switch op.What {
		case linear.Buy:
			op.SKU, op.User, op.Key, op.Answer, op.Reservation, op.State = "s", w[3], w[4], w[5], w[6], w[7]
			if op.Answer == linear.Accepted {
				op.NotBefore = ms(t, "1000")
			}
		case linear.Counts:
			op.SKU = "s"
			if _, err := fmt.Sscan(strings.Join(w[3:6], " "), &op.Free, &op.Held, &op.Confirmed); err != nil {
				t.Fatal(err)
			}
		case linear.Final:
			h.Complete = true
			op.SKU, op.User, op.Key, op.Reservation, op.State = "s", w[3], w[4], w[5], w[6]
		default:
			op.User, op.Reservation, op.State = w[3], w[4], w[5]
		}
		ops = append(ops, op)
	}
	h.Ops = slices.Values(ops)
	return h
}

func ms(t *testing.T, s string) int64 {
	t.Helper()
	d, err := time.ParseDuration(s + "ms")
	if err != nil {
		t.Fatal(err)
	}
	return int64(d) + 1 // so that 0 is a time, too
}

func TestCheck(t *testing.T) {
	// want is part of a violation, or "" for a legal history.
	f := func(name string, units int, want, text string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got, err := linear.Check(script(t, units, 1, text))
			if err != nil {
				t.Fatal(err)
			}
			told := strings.Join(append(got.Violations, got.Doubts...), "\n")
			switch {
			case want == "" && got.Verdict != linear.Legal:
				t.Errorf("a legal history is called %s:\n%s", got, told)
			case want != "" && (got.Verdict != linear.Illegal || !strings.Contains(told, want)):
				t.Errorf("%s, and nothing says %q:\n%s", got, want, told)
			}
		})
	}

	f("nothing", 1, "", ``)
	f("sale", 2, "", `
		0 5    buy ann k1 accepted r1 held
		3 8    buy bob k1 accepted r2 held
		4 9    buy eve k1 all_held
		10 12  counts 0 2 0
		20 21  pay ann r1
		21 30  order ann r1 confirmed
		40 45  cancel bob r2 released
		46 47  counts 1 0 1
		50 55  buy eve k1 accepted r3 held
		60 60  pay eve r3
		70 75  buy eve k1 accepted r3 confirmed
		80 85  buy kim k1 sold_out
		90 90  final ann k1 r1 confirmed
		90 90  final bob k1 r2 released
		90 90  final eve k1 r3 confirmed
		90 90  counts 0 0 2`)
	f("refused while the last unit is being taken", 1, "", `
		0 10 buy ann k1 accepted r1 held
		1 2  buy bob k1 all_held
		3 4  buy eve k1 all_held`)
	f("refused while a unit is being given back", 1, "", `
		0 1   buy ann k1 accepted r1 held
		10 20 cancel ann r1 released
		11 19 buy bob k1 all_held
		12 18 buy bob k2 accepted r2 held`)

	f("lost unit", 2, "the counts of s were read as 0 free, 1 held, 0 sold", `
		0 5  buy ann k1 accepted r1 held
		6 7  counts 0 1 0`)
	f("lost unit, by refusals only", 2, "bob (key k1) was told all_held", `
		0 5  buy ann k1 accepted r1 held
		6 7  buy bob k1 all_held`)
	f("oversold by one", 2, "was bought by", `
		0 5  buy ann k1 accepted r1 held
		0 5  buy bob k1 accepted r2 held
		0 5  buy eve k1 accepted r3 held`)
	f("oversold in time: given back later", 1, "reservation r2 of bob (key k1) was bought by", `
		0 5   buy ann k1 accepted r1 held
		6 7   buy bob k1 accepted r2 held
		10 11 cancel ann r1 released`)
	f("a unit given back twice", 2, "was bought by", `
		0 5   buy ann k1 accepted r1 held
		0 5   buy bob k1 accepted r2 held
		10 11 cancel ann r1 released
		12 13 buy eve k1 accepted r3 held
		12 13 buy kim k1 accepted r4 held`)
	f("sold_out while a unit was free and nobody had asked", 1, "bob (key k1) was told sold_out", `
		0 1 buy bob k1 sold_out
		5 6 buy ann k1 accepted r1 held`)
	f("sold_out while a unit was held", 1, "bob (key k1) was told sold_out", `
		0 1   buy ann k1 accepted r1 held
		5 6   buy bob k1 sold_out
		10 11 pay ann r1
		20 21 order ann r1 confirmed`)
	f("sold_out taken back", 1, "eve (key k1) was told all_held", `
		0 1   buy ann k1 accepted r1 held
		2 -   pay ann r1
		5 6   buy bob k1 sold_out
		7 8   buy eve k1 all_held
		20 21 order ann r1 confirmed`)
	f("all_held after the last was shown as sold", 1, "bob (key k1) was told all_held", `
		0 1 buy ann k1 accepted r1 held
		2 3 pay ann r1
		4 5 order ann r1 confirmed
		6 7 buy bob k1 all_held`)
	f("stale refusal after an acknowledged cancel", 1, "bob (key k1) was told all_held", `
		0 1   buy ann k1 accepted r1 held
		5 6   cancel ann r1 released
		7 8   buy bob k1 all_held`)
	f("expired early", 1, "reservation r2 of bob (key k1) was bought by", `
		0 1     buy ann k1 accepted r1 held
		100 101 buy bob k1 accepted r2 held
		1500 1501 order ann r1 released`)
	f("expired in time", 1, "", `
		0 1     buy ann k1 accepted r1 held
		1100 1101 buy bob k1 accepted r2 held
		1500 1501 order ann r1 released`)
	f("given back although it was sold", 1, "", `
		0 1     buy ann k1 accepted r1 held
		2 3     pay ann r1
		4 5     order ann r1 confirmed`)
	f("sold twice", 1, "the counts of s were read as 0 free, 0 held, 2 sold", `
		0 1 buy ann k1 accepted r1 held
		2 3 pay ann r1
		4 5 order ann r1 confirmed
		6 7 counts 0 0 2`)
	f("double confirm, seen in a sum that adds up", 2, "the counts of s were read as 0 free, 0 held, 2 sold", `
		0 1 buy ann k1 accepted r1 held
		2 3 pay ann r1
		4 5 order ann r1 confirmed
		6 7 counts 0 0 2`)

	f("receipt changed", 2, "key k1 got reservation r2", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k1 accepted r2 held`)
	f("one receipt for two", 2, "reservation r1 was given to ann (key k1) and to bob (key k1)", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy bob k1 accepted r1 held`)
	f("known key refused", 1, "key k1 was told all_held", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k1 all_held`)
	f("known key told not_open", 1, "key k1 was told not_open", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k1 not_open`)
	f("a key refused is accepted later", 1, "", `
		0 1   buy bob k1 accepted r1 held
		2 3   buy ann k1 all_held
		5 6   cancel bob r1 released
		7 8   buy ann k1 accepted r2 held
		9 10  buy ann k1 accepted r2 held`)
	f("over the limit", 2, "reservation r2 of ann (key k2) was bought", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k2 accepted r2 held`)
	f("the limit is free again after a cancel", 2, "", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k2 limit_reached
		4 9 cancel ann r1 released
		5 8 buy ann k2 limit_reached
		5 8 buy ann k3 accepted r2 held`)
	f("limit_reached after an acknowledged cancel", 2, "key k2 was told limit_reached", `
		0 1 buy ann k1 accepted r1 held
		4 5 cancel ann r1 released
		6 7 buy ann k2 limit_reached`)
	f("limit_reached without anything", 2, "key k1 was told limit_reached", `
		0 1 buy ann k1 limit_reached`)
	f("told of stock although the limit comes first", 1, "key k2 was told all_held", `
		0 1 buy ann k1 accepted r1 held
		2 3 buy ann k2 all_held`)
	f("an end taken back", 1, "reservation r1, held", `
		0 1   buy ann k1 accepted r1 held
		4 5   cancel ann r1 released
		6 7   buy ann k1 accepted r1 held
		9 9   final ann k1 r1 released`)
	f("shown as sold, then as over", 1, "shown as released", `
		0 1 buy ann k1 accepted r1 held
		2 3 pay ann r1
		4 5 order ann r1 confirmed
		6 7 order ann r1 released`)

	f("lost reply that bought", 1, "", `
		0 -   buy ann k1 unknown
		1 2   buy bob k1 all_held
		20 21 buy ann k1 accepted r1 held`)
	f("lost reply that bought nothing", 1, "", `
		0 -   buy ann k1 unknown
		10 11 buy bob k1 accepted r1 held
		20 21 buy ann k1 all_held`)
	f("lost reply that may have bought, nobody asked again", 1, "", `
		0 -   buy ann k1 unknown
		10 11 buy bob k1 all_held`)
	f("lost reply that bought, by what was found in the end", 1, "bob (key k1) was told all_held", `
		5 -   buy ann k1 unknown
		1 2   buy bob k1 all_held
		50 50 final ann k1 r1 held`)
	f("lost reply that bought nothing, by what was found in the end", 1, "eve (key k1) was told all_held", `
		0 -     buy ann k1 unknown
		10 11   buy eve k1 all_held
		20 21   buy bob k1 accepted r1 held
		90 90   final bob k1 r1 held`)
	f("two lost replies and one unit", 1, "", `
		0 -   buy ann k1 unknown
		0 -   buy bob k1 unknown
		1 2   counts 1 0 0
		3 4   buy eve k1 all_held
		5 6   buy eve k1 all_held
		20 21 buy ann k1 all_held
		20 21 buy bob k1 accepted r1 held`)
	// When bob's purchase was made is known from the orders at rest only.
	f("given back and bought unseen before all is sold", 1, "", `
		0 1   buy ann k1 accepted r1 held
		1 -   buy bob k1 unknown
		2 -   cancel ann r1
		5 6   buy eve k1 sold_out
		9 9   final ann k1 r1 released
		9 9   final bob k1 r2 confirmed`)
	f("given back after all is sold, and bought nobody knows when", 1, "reservation r2 of bob (key k1) was bought by", `
		0 1   buy ann k1 accepted r1 held
		1 -   buy bob k1 unknown
		5 6   buy eve k1 sold_out
		7 -   cancel ann r1
		9 9   final ann k1 r1 released
		9 9   final bob k1 r2 confirmed`)
	f("given back after all is sold, and seen so", 1, "reservation r1 of ann (key k1) was given back by", `
		0 1   buy ann k1 accepted r1 held
		1 -   buy bob k1 unknown
		5 6   buy eve k1 sold_out
		7 8   cancel ann r1 released
		9 9   final ann k1 r1 released
		9 9   final bob k1 r2 confirmed`)
	f("promised and gone", 1, "is not among the orders in the end", `
		0 1   buy ann k1 accepted r1 held
		0 1   buy bob k1 all_held
		9 9   final bob k1 r7 held`)
	f("lost cancel that was done", 1, "", `
		0 1   buy ann k1 accepted r1 held
		2 -   cancel ann r1
		4 5   buy bob k1 all_held
		6 7   buy bob k1 accepted r2 held`)
	f("lost cancel that was not", 1, "", `
		0 1   buy ann k1 accepted r1 held
		2 -   cancel ann r1
		4 5   buy bob k1 all_held
		6 7   buy ann k1 accepted r1 held
		8 9   counts 0 1 0`)
	f("a held unit is not taken for the lost cancel before it was seen", 1, "reservation r2 of bob (key k1) was bought by", `
		0 1   buy ann k1 accepted r1 held
		2 -   cancel ann r1
		4 5   buy bob k1 accepted r2 held
		6 7   buy ann k1 accepted r1 held`)
}

func TestInsufficientAndQuantity(t *testing.T) {
	f := func(want linear.Verdict, answer string) {
		t.Helper()
		h := linear.History{Activity: "a", Items: []linear.Item{{SKU: "s", Units: 3}}, Ops: slices.Values([]linear.Op{
			{What: linear.Buy, User: "ann", Key: "k", SKU: "s", Quantity: 2, Call: 1, Return: 2, Answer: linear.Accepted, Reservation: "r1", State: linear.Held},
			{What: linear.Buy, User: "bob", Key: "k", SKU: "s", Quantity: 2, Call: 3, Return: 4, Answer: answer},
			{What: linear.Buy, User: "eve", Key: "k", SKU: "s", Quantity: 1, Call: 5, Return: 6, Answer: linear.Accepted, Reservation: "r2", State: linear.Held},
		})}
		got, err := linear.Check(h)
		if err != nil || got.Verdict != want {
			t.Errorf("%s: %s %v, want %s", answer, got, err, want)
		}
	}
	f(linear.Legal, "insufficient")
	f(linear.Illegal, "all_held")
	f(linear.Illegal, "sold_out")
}

// A ledger that follows the order late is illegal, and the check says by how much.
func TestLag(t *testing.T) {
	text := `
		0 1   buy ann k1 accepted r1 held
		5 6   cancel ann r1 released
		7 50  buy bob k1 all_held
		52 53 buy bob k1 all_held`
	got, err := linear.Check(script(t, 1, 1, text))
	if err != nil || got.Verdict != linear.Illegal || !strings.Contains(strings.Join(got.Violations, "\n"), "by up to 100ms") {
		t.Errorf("%s %q %v", got, got.Violations, err)
	}
	got, err = linear.CheckWith(script(t, 1, 1, text), linear.Options{Lag: 50 * time.Millisecond})
	if err != nil || got.Verdict != linear.Legal {
		t.Errorf("with lag: %s %q %v", got, got.Violations, err)
	}
}

func TestNotChecked(t *testing.T) {
	h := script(t, 1, 1, `0 1 buy ann k1 accepted a.0.1.1 held`)
	h.Dropped = 7
	got, err := linear.Check(h)
	if err != nil || got.Verdict != linear.NotChecked || !strings.Contains(strings.Join(got.Doubts, "\n"), "7 operations were not recorded") {
		t.Errorf("dropped: %s %q %v", got, got.Doubts, err)
	}
	got, err = linear.Check(script(t, 2, 1, `
		0 1 buy ann k1 accepted a.0.1.1 held
		0 1 buy bob k1 accepted a.1.1.1 held`))
	if err != nil || got.Verdict != linear.NotChecked || !strings.Contains(strings.Join(got.Doubts, "\n"), "2 buckets") {
		t.Errorf("buckets: %s %q %v", got, got.Doubts, err)
	}
	// What is wrong is said, although not all was recorded.
	h = script(t, 1, 1, `0 1 buy ann k1 sold_out`)
	h.Dropped = 7
	if got, err = linear.Check(h); err != nil || got.Verdict != linear.Illegal {
		t.Errorf("dropped, and illegal: %s %v", got, err)
	}
	got, err = linear.CheckWith(crowded(20_000), linear.Options{Timeout: time.Nanosecond})
	if err != nil || got.Verdict != linear.NotChecked || !strings.Contains(strings.Join(got.Doubts, "\n"), "time ran out") {
		t.Errorf("without time: %s %q %v", got, got.Doubts, err)
	}
}

// crowded is a legal history in which hundreds of purchases, ends and refusals
// are always under way at once: a naive search would never end.
func crowded(rounds int) linear.History {
	const units = 100
	return linear.History{Activity: "a", PerUser: 1, Items: []linear.Item{{SKU: "s", Units: units}}, Ops: func(yield func(linear.Op) bool) {
		for n := range rounds {
			at := int64(n+1) * 1000
			user := fmt.Sprintf("u%d", n)
			id := fmt.Sprintf("r%d", n)
			// 150 purchases are under way at each moment, and hold for about 50 rounds.
			if !yield(linear.Op{What: linear.Buy, User: user, Key: "k", SKU: "s", Call: at, Return: at + 150_000, Answer: linear.Accepted, Reservation: id, State: linear.Held}) ||
				!yield(linear.Op{What: linear.Cancel, User: user, Reservation: id, Call: at + 150_001, Return: at + 200_000, State: linear.Released}) {
				return
			}
			for i := range int64(3) {
				if n > 300 && !yield(linear.Op{What: linear.Buy, User: "x" + user, Key: fmt.Sprint(i), SKU: "s", Call: at + 300*i, Return: at + 300*i + 20_000, Answer: "all_held"}) {
					return
				}
			}
		}
	}}
}

func TestCrowded(t *testing.T) {
	t.Parallel()
	h := crowded(20_000)
	got, err := linear.Check(h)
	if err != nil || got.Verdict != linear.Legal {
		t.Errorf("%s %q %q %v", got, got.Violations, got.Doubts, err)
	}
	t.Logf("%s; %d to search", got, got.Searched)

	// One lie in the middle is found, however many other orders there are to try.
	ops := h.Ops
	h.Ops = func(yield func(linear.Op) bool) {
		if yield(linear.Op{What: linear.Buy, User: "liar", Key: "k", SKU: "s", Call: 10_000_500, Return: 10_000_900, Answer: "sold_out"}) {
			ops(yield)
		}
	}
	got, err = linear.Check(h)
	if err != nil || got.Verdict != linear.Illegal || !strings.Contains(strings.Join(got.Violations, "\n"), "liar (key k) was told sold_out") {
		t.Errorf("with a lie: %s %q %q %v", got, got.Violations, got.Doubts, err)
	}
	t.Logf("%s %q", got, got.Violations)
}

func TestFileAndPicture(t *testing.T) {
	h := script(t, 1, 1, `
		0 1   buy ann k1 accepted r1 held
		5 6   cancel ann r1 released
		7 8   buy bob k1 all_held
		9 9   final ann k1 r1 released
		9 9   counts 1 0 0`)
	h.Dropped = 3
	var file bytes.Buffer
	if err := linear.Write(&file, h); err != nil {
		t.Fatal(err)
	}
	text := file.String()
	again, err := linear.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Collect(again.Ops), slices.Collect(h.Ops); !slices.Equal(got, want) {
		t.Errorf("read %v, wrote %v", got, want)
	}
	if !again.Complete || again.Dropped != 3 || again.PerUser != 1 || again.Activity != "a" || len(again.Items) != 1 || again.Items[0].Units != 1 {
		t.Errorf("read %+v", again)
	}
	got, err := linear.Check(again)
	if err != nil || got.Verdict != linear.Illegal {
		t.Fatalf("%s %v", got, err)
	}
	var page bytes.Buffer
	if err := got.Draw(&page); err != nil || !strings.Contains(page.String(), "bob (key k1) was told all_held") {
		t.Errorf("the page does not show it: %v", err)
	}
	for _, bad := range []string{"", "{}\n", text[:len(text)-20], strings.Replace(text, `"op":"cancel"`, `"op":7`, 1), text[:strings.LastIndex(text[:len(text)-1], "\n")+1]} {
		if _, err := linear.Read(strings.NewReader(bad)); !errors.Is(err, linear.ErrHistory) {
			t.Errorf("%.60q…: %v", bad, err)
		}
	}
}

func TestNotAHistory(t *testing.T) {
	f := func(text string) {
		t.Helper()
		if _, err := linear.Check(script(t, 1, 1, text)); !errors.Is(err, linear.ErrHistory) {
			t.Errorf("%s: %v", text, err)
		}
	}
	f(`5 1 buy ann k1 sold_out`)
	f(`0 1 sell ann k1`)
	f(`0 - buy ann k1 accepted r1 held`)
	f(`0 1 buy ann k1 accepted`)
	f(`0 1 buy ann k1`)
	f(`0 1 order ann r1 gone`)
	if _, err := linear.Check(linear.History{}); !errors.Is(err, linear.ErrHistory) {
		t.Errorf("an empty one: %v", err)
	}
}
