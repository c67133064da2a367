package challenge

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/internal/gate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte(strings.Repeat("k", 32))
	noon   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
)

// office is a desk whose clock is the test's, with pictures that nobody looks at:
// what is in them makes no difference here.
type office struct {
	*Desk
	at atomic.Int64 // Unix ms
}

const (
	holeAt   = 150
	resultIs = 45
)

func open(secret []byte, once once) *office {
	o := &office{}
	o.set(0)
	now := func() time.Time { return time.UnixMilli(o.at.Load()).UTC() }
	if once == nil {
		once = NewOnce(1000, now)
	}
	o.Desk = New(Options{Secret: secret, Once: once, Now: now, Ready: 1})
	o.pools[sliderKind].add(picture{image: "data:slider", piece: "data:piece", answer: holeAt, y: 40})
	o.pools[arithmeticKind].add(picture{image: "data:sum", answer: resultIs})
	return o
}

func (o *office) set(since time.Duration) { o.at.Store(noon.Add(since).UnixMilli()) }

func (o *office) offer(t testing.TB, kind string) Challenge {
	t.Helper()
	c, err := o.Offer("spring", "ann", kind)
	if err != nil {
		t.Fatal(err)
	}
	o.pools[sliderKind].add(picture{image: "data:slider", piece: "data:piece", answer: holeAt, y: 40})
	o.pools[arithmeticKind].add(picture{image: "data:sum", answer: resultIs})
	return c
}

// One answer is right, and only from whom it was asked, for what it was asked,
// and in time.
func TestCheck(t *testing.T) {
	f := func(name, kind, activity, user string, after time.Duration, answer int, edit func(token string) string, want error) {
		t.Helper()
		o := open(secret, nil)
		c := o.offer(t, kind)
		o.set(after)
		token := c.Token
		if edit != nil {
			token = edit(token)
		}
		text, slip, err := o.Check(t.Context(), activity, user, token, answer)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err != nil {
			if text != "" || slip != (gate.Slip{}) {
				t.Errorf("%s: %q, %+v beside %v", name, text, slip, err)
			}
			return
		}
		now := noon.Add(after)
		if got, err := gate.NewSeal(secret).Open(gate.Clearance, text, activity, user, now); err != nil || got.ID != slip.ID || !got.Until.Equal(now.Add(Cleared)) {
			t.Errorf("%s: the clearance is %+v, %v", name, got, err)
		}
	}
	const second = time.Second
	f("a hole found", gate.Slider, "spring", "ann", second, holeAt, nil, nil)
	f("a sum done", gate.Arithmetic, "spring", "ann", second, resultIs, nil, nil)
	f("any kind is a slider", "", "spring", "ann", second, holeAt, nil, nil)
	f("nearly", gate.Slider, "spring", "ann", second, holeAt+Tolerance, nil, nil)
	f("nearly, on the other side", gate.Slider, "spring", "ann", second, holeAt-Tolerance, nil, nil)
	f("too far", gate.Slider, "spring", "ann", second, holeAt+Tolerance+1, nil, ErrFailed)
	f("not far enough", gate.Slider, "spring", "ann", second, holeAt-Tolerance-1, nil, ErrFailed)
	f("where the piece stood", gate.Slider, "spring", "ann", second, 0, nil, ErrFailed)
	f("nearly is wrong in a sum", gate.Arithmetic, "spring", "ann", second, resultIs+1, nil, ErrFailed)
	f("a sum answered as a slider", gate.Arithmetic, "spring", "ann", second, holeAt, nil, ErrFailed)
	f("far out", gate.Slider, "spring", "ann", second, -1<<63, nil, ErrFailed)
	f("far out on the other side", gate.Slider, "spring", "ann", second, 1<<63-1, nil, ErrFailed)
	f("modulo 2³²", gate.Arithmetic, "spring", "ann", second, resultIs+1<<32, nil, ErrFailed)

	f("another's", gate.Slider, "spring", "bob", second, holeAt, nil, ErrFailed)
	f("nobody's", gate.Slider, "spring", "", second, holeAt, nil, ErrFailed)
	f("for another activity", gate.Slider, "autumn", "ann", second, holeAt, nil, ErrFailed)
	f("names moved into one another", gate.Slider, "springa", "nn", second, holeAt, nil, ErrFailed)

	f("as soon as a person can", gate.Slider, "spring", "ann", Earliest, holeAt, nil, nil)
	f("sooner", gate.Slider, "spring", "ann", Earliest-time.Millisecond, holeAt, nil, ErrFailed)
	f("at once", gate.Arithmetic, "spring", "ann", 0, resultIs, nil, ErrFailed)
	f("before it was asked", gate.Arithmetic, "spring", "ann", -second, resultIs, nil, ErrFailed)
	f("in the last moment", gate.Slider, "spring", "ann", Valid-time.Millisecond, holeAt, nil, nil)
	f("too late", gate.Slider, "spring", "ann", Valid, holeAt, nil, ErrFailed)
	f("much too late", gate.Slider, "spring", "ann", time.Hour, holeAt, nil, ErrFailed)

	f("nothing", gate.Slider, "spring", "ann", second, holeAt, func(string) string { return "" }, ErrFailed)
	f("cut", gate.Slider, "spring", "ann", second, holeAt, func(s string) string { return s[:len(s)-1] }, ErrFailed)
	f("longer", gate.Slider, "spring", "ann", second, holeAt, func(s string) string { return s + "A" }, ErrFailed)
	f("padded", gate.Slider, "spring", "ann", second, holeAt, func(s string) string { return s + "=" }, ErrFailed)
	f("a line break in it", gate.Slider, "spring", "ann", second, holeAt, func(s string) string { return s[:9] + "\n" + s[10:] }, ErrFailed)
	f("a line break after it", gate.Slider, "spring", "ann", second, holeAt, func(s string) string { return s + "\n" }, ErrFailed)
	f("of another shop", gate.Slider, "spring", "ann", second, holeAt, func(string) string {
		return open([]byte(strings.Repeat("z", 32)), nil).offer(t, gate.Slider).Token
	}, ErrFailed)
	f("a clearance as a challenge", gate.Slider, "spring", "ann", second, holeAt, func(string) string {
		return gate.NewSeal(secret).Sign(gate.Slip{Kind: gate.Clearance, Activity: "spring", User: "ann", ID: "x", Until: noon.Add(time.Hour)})
	}, ErrFailed)
}

// Each challenge has one answer: the second is none, whatever the first was, at
// whichever gateway and however many come at once.
func TestAnswersAreSpent(t *testing.T) {
	f := func(name string, first, second int, after time.Duration, want error) {
		t.Helper()
		shared := NewOnce(10, func() time.Time { return noon })
		here, there := open(secret, shared), open(secret, shared)
		c := here.offer(t, gate.Slider)
		here.set(after)
		there.set(after + time.Second)
		if _, _, err := here.Check(t.Context(), "spring", "ann", c.Token, first); !errors.Is(err, want) {
			t.Errorf("%s: the first %v", name, err)
		}
		for _, o := range []*office{here, there} {
			if _, _, err := o.Check(t.Context(), "spring", "ann", c.Token, second); !errors.Is(err, ErrFailed) {
				t.Errorf("%s: the second %v", name, err)
			}
		}
	}
	f("right, and right again", holeAt, holeAt, time.Second, nil)
	f("wrong, and then right", holeAt+50, holeAt, time.Second, ErrFailed)
	f("too soon, and then in time", holeAt, holeAt, Earliest/2, ErrFailed)

	o := open(secret, nil)
	c := o.offer(t, gate.Slider)
	o.set(time.Second)
	// Who is not concerned cannot spend it.
	for _, user := range []string{"bob", "", "Ann"} {
		if _, _, err := o.Check(t.Context(), "spring", user, c.Token, holeAt); !errors.Is(err, ErrFailed) {
			t.Error(err)
		}
	}
	var passed atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, err := o.Check(t.Context(), "spring", "ann", c.Token, holeAt); err == nil {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 1 {
		t.Errorf("%d of 50 answers at once were taken", passed.Load())
	}
}

// Every byte counts, and a forgery spends nothing.
func TestEveryByteOfATokenCounts(t *testing.T) {
	o := open(secret, nil)
	c := o.offer(t, gate.Slider)
	o.set(time.Second)
	token := []byte(c.Token)
	for at, was := range token {
		for other := range 256 {
			if token[at] = byte(other); byte(other) == was {
				continue
			}
			if _, _, err := o.Check(t.Context(), "spring", "ann", string(token), holeAt); !errors.Is(err, ErrFailed) {
				t.Fatalf("byte %d as %#x: %v", at, other, err)
			}
		}
		token[at] = was
	}
	if _, _, err := o.Check(t.Context(), "spring", "ann", c.Token, holeAt); err != nil {
		t.Fatal(err)
	}
}

// While it is not known what was answered, nobody is cleared, and nothing is lost.
func TestWithoutMemoryNobodyIsCleared(t *testing.T) {
	away := &faulty{err: errors.New("away")}
	o := open(secret, away)
	c := o.offer(t, gate.Slider)
	o.set(time.Second)
	if text, _, err := o.Check(t.Context(), "spring", "ann", c.Token, holeAt); !errors.Is(err, away.err) || errors.Is(err, ErrFailed) || text != "" {
		t.Errorf("%q, %v", text, err)
	}
	away.err = nil
	if _, _, err := o.Check(t.Context(), "spring", "ann", c.Token, holeAt); err != nil {
		t.Error(err)
	}
	// It is remembered by its id, for longer than any gateway takes the token.
	if want := noon.Add(Valid + time.Minute); !away.until.Equal(want) || len(away.id) != 22 {
		t.Errorf("%q until %v", away.id, away.until)
	}
}

type faulty struct {
	err   error
	id    string
	until time.Time
}

func (f *faulty) Spend(_ context.Context, id string, until time.Time) (bool, error) {
	f.id, f.until = id, until
	return true, f.err
}

// Neither the reply nor the token in it says the answer, or anything that goes
// along with it.
func TestTheAnswerIsNotTold(t *testing.T) {
	s, id := newSealer(secret), [idSize]byte{1, 2, 3}
	seen := map[byte]int{}
	for answer := range int32(400) {
		raw, err := base64.RawURLEncoding.DecodeString(s.seal(id, question{sliderKind, answer, noon.UnixMilli()}, "spring", "ann"))
		if err != nil || len(raw) != sealedSize {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
		tag := raw[len(raw)-tagSize]
		seen[tag]++
	}
	if len(seen) < 150 { // of 256: as 400 random bytes
		t.Errorf("%d different bytes at one place of 400 tokens", len(seen))
	}

	// Two challenges with the same answer, at the same time, have nothing in
	// common.
	o := open(secret, nil)
	a, b := o.offer(t, gate.Slider), o.offer(t, gate.Slider)
	same := 0
	for i := range a.Token {
		if a.Token[i] == b.Token[i] {
			same++
		}
	}
	if len(a.Token) != tokenSize || len(b.Token) != tokenSize || same > 12 {
		t.Errorf("%q and %q have %d letters in common", a.Token, b.Token, same)
	}
	f := func(kind string, want ...string) {
		t.Helper()
		body, err := json.Marshal(o.offer(t, kind))
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(body, &fields); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
			t.Errorf("%s: fields %q", kind, got)
		}
		for name, value := range fields {
			if value == float64(holeAt) || value == float64(resultIs) {
				t.Errorf("%s: %s is the answer", kind, name)
			}
		}
	}
	f(gate.Slider, "challenge", "expires_at", "height", "image", "kind", "piece", "piece_height", "piece_width", "piece_y", "width")
	f(gate.Arithmetic, "challenge", "expires_at", "height", "image", "kind", "width")
}

// Whatever was asked comes back, and by the right answer and its neighbours only.
func TestTokensRoundTrip(t *testing.T) {
	s := newSealer(secret)
	rapid.Check(t, func(t *rapid.T) {
		q := question{kind(rapid.IntRange(0, int(kinds)-1).Draw(t, "kind")), rapid.Int32().Draw(t, "answer"), rapid.Int64().Draw(t, "issued")}
		id := [idSize]byte(rapid.SliceOfN(rapid.Byte(), idSize, idSize).Draw(t, "id"))
		activity, user := rapid.StringN(0, 3, 20).Draw(t, "activity"), rapid.StringN(0, 3, 20).Draw(t, "user")
		token := s.seal(id, q, activity, user)
		if gotID, got, ok := s.open(token, activity, user); !ok || got != q || gotID != id {
			t.Fatalf("%+v came back as %+v, %v", q, got, ok)
		}
		if _, _, ok := s.open(token, user, activity); ok && user != activity {
			t.Fatal("user and activity are one to it")
		}
		off := rapid.IntRange(-12, 12).Draw(t, "off by")
		want := off == 0 || q.kind == sliderKind && off >= -Tolerance && off <= Tolerance
		if q.accepts(int(q.answer)+off) != want {
			t.Fatalf("%+v, off by %d: want %v", q, off, want)
		}
	})
}

func FuzzTokenOpen(f *testing.F) {
	s := newSealer(secret)
	good := s.seal([idSize]byte{9}, question{arithmeticKind, 45, 1}, "spring", "ann")
	f.Add(good, "spring", "ann")
	f.Add("", "", "")
	f.Add(strings.Repeat("A", tokenSize), "spring", "ann")
	f.Add(good[:30]+"\n"+good[31:], "spring", "ann")
	f.Fuzz(func(t *testing.T, token, activity, user string) {
		if _, q, ok := s.open(token, activity, user); ok != (token == good && activity == "spring" && user == "ann") {
			t.Errorf("%q for %q by %q: %+v, %v", token, activity, user, q, ok)
		}
	})
}

// An id is spent once, until it is over; there is room for so many, and what has no
// room is not called the first.
func TestOnce(t *testing.T) {
	now := noon
	o := NewOnce(3, func() time.Time { return now })
	f := func(at time.Duration, id string, until time.Duration, first bool, want error) {
		t.Helper()
		now = noon.Add(at)
		if got, err := o.Spend(t.Context(), id, noon.Add(until)); got != first || !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%q at %v: %v, %v; want %v, %v", id, at, got, err, first, want)
		}
	}
	const minute = time.Minute
	f(0, "a", minute, true, nil)
	f(0, "a", minute, false, nil)
	f(0, "b", 2*minute, true, nil)
	f(time.Second, "c", minute, true, nil)
	f(time.Second, "d", 3*minute, false, gate.ErrOverloaded)
	f(time.Second, "a", minute, false, nil)
	f(minute-1, "a", minute, false, nil)
	f(minute+slot, "b", 2*minute, false, nil) // a and c are forgotten
	f(minute+slot, "d", 3*minute, true, nil)
	f(minute+slot, "e", 3*minute, true, nil)
	f(minute+slot, "f", 3*minute, false, gate.ErrOverloaded)
	f(10*minute, "f", 11*minute, true, nil)
	if o.n != 1 || len(o.spent) != 1 {
		t.Errorf("%d kept in %d slots", o.n, len(o.spent))
	}

	o = NewOnce(1000, func() time.Time { return noon })
	var firsts atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 200 {
				if first, err := o.Spend(t.Context(), fmt.Sprint(i), noon.Add(time.Duration(i)*time.Second)); first && err == nil {
					firsts.Add(1)
				}
			}
		})
	}
	all.Wait()
	if firsts.Load() != 200 {
		t.Errorf("%d firsts of 200 ids", firsts.Load())
	}
}

func BenchmarkDesk(b *testing.B) {
	o := open(secret, nil)
	for range 4 {
		o.pools[sliderKind].size = 1 << 20
		o.pools[sliderKind].add(picture{image: strings.Repeat("x", 20_000), answer: holeAt})
	}
	b.Run("offer", func(b *testing.B) {
		for b.Loop() {
			if _, err := o.Offer("spring", "ann", gate.Slider); err != nil {
				o.pools[sliderKind].add(picture{answer: holeAt})
			}
		}
	})
	run := func(name string, answer int, want error) {
		b.Run(name, func(b *testing.B) {
			o.once = &faulty{} // forgets, so that one token will do
			token := o.tokens.seal([idSize]byte{1}, question{sliderKind, holeAt, noon.UnixMilli()}, "spring", "ann")
			o.set(time.Second)
			for b.Loop() {
				if _, _, err := o.Check(b.Context(), "spring", "ann", token, answer); !errors.Is(err, want) {
					b.Fatal(err)
				}
			}
		})
	}
	run("check, right", holeAt, nil)
	run("check, wrong", 0, ErrFailed)
	b.Run("check, forged", func(b *testing.B) {
		token := strings.Repeat("A", tokenSize)
		for b.Loop() {
			if _, _, err := o.Check(b.Context(), "spring", "ann", token, 1); err == nil {
				b.Fatal("taken")
			}
		}
	})
	b.Run("once", func(b *testing.B) {
		once, n := NewOnce(1<<24, time.Now), 0
		until := time.Now().Add(time.Minute)
		for b.Loop() {
			n++
			if first, err := once.Spend(b.Context(), strconv.Itoa(n), until); !first || err != nil {
				b.Fatal(first, err)
			}
		}
	})
}
