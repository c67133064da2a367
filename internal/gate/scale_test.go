package gate

import (
	"errors"
	"testing"
	"time"

	"sluice/internal/lib/limit"
)

func TestScaledRates(t *testing.T) {
	f := func(r limit.Rate, percent int, want string) {
		t.Helper()
		got := scaled(r, percent)
		if got.String() != want {
			t.Errorf("%d%% of %s is %s, want %s", percent, r, got, want)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%d%% of %s: %v", percent, r, err)
		}
	}
	rate := func(a limit.Algorithm, n, burst int64) limit.Rate {
		return limit.Rate{Algorithm: a, Limit: n, Per: time.Second, Burst: burst}
	}
	f(rate(limit.TokenBucket, 100, 0), 100, "token 100 per 1s, burst 100")
	f(rate(limit.TokenBucket, 100, 0), 30, "token 30 per 1s, burst 30")
	f(rate(limit.TokenBucket, 100, 50), 30, "token 30 per 1s, burst 15")
	f(rate(limit.TokenBucket, 1, 5), 50, "token 1 per 1s, burst 2")
	f(rate(limit.TokenBucket, 1, 5), 1, "token 1 per 1s, burst 1")
	f(rate(limit.FixedWindow, 7, 0), 50, "fixed 3 per 1s")
	f(rate(limit.SlidingWindow, 1, 0), 1, "sliding 1 per 1s")
	f(rate(limit.LeakyBucket, 3, 15), 50, "leaky 1 per 1s, queue 5")
	f(rate(limit.LeakyBucket, 100, 500), 50, "leaky 50 per 1s, queue 250")
	f(rate(limit.TokenBucket, limit.MaxLimit, 0), 99, "token 990000000 per 1s, burst 990000000")
}

// A scale is in force at once and over edits, forgets nothing that was used, and
// can be taken back.
func TestScale(t *testing.T) {
	l := limitsOf(t, rule("all", by(), upTo(100)))
	spend := func() (n int) {
		for l.Admit(noon, buys("ann")).Allowed {
			n++
		}
		return n
	}
	f := func(what string, percent, want int) {
		t.Helper()
		if err := l.Scale(percent, 1, noon); err != nil {
			t.Fatal(err)
		}
		if n := spend(); n != want {
			t.Errorf("%s: %d more, want %d", what, n, want)
		}
	}
	f("a tenth", 10, 10)
	f("the same again", 10, 0)
	f("half", 50, 40)
	f("less than was used", 20, 0)
	if v := l.Admit(noon, buys("ann")); v.Allowed || v.Limit != 20 {
		t.Errorf("%+v", v)
	}
	if err := l.Apply(edition(2, rule("all", by(), upTo(200)), rule("more", by(), upTo(400))), noon); err != nil {
		t.Fatal(err)
	}
	x, n := l.Explain(noon, buys("ann")), l.Counts()
	if x.Percent != 20 || x.Rules[0].Rate != "fixed 40 per 1m0s" || x.Refuses != "all" || n[1].Rate != "fixed 80 per 1m0s" || n[1].Refused != 0 {
		t.Errorf("%+v\n%+v", x, n)
	}
	f("edited, all of it", 100, 150)
	for _, percent := range []int{0, -1, 101} {
		if err := l.Scale(percent, 1, noon); !errors.Is(err, ErrRules) {
			t.Errorf("%d%%: %v", percent, err)
		}
	}
	if x := l.Explain(noon, buys("ann")); x.Percent != 100 {
		t.Errorf("%d%% after what cannot be", x.Percent)
	}
}
