package gate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var aSlip = Slip{Kind: Ticket, Activity: "spring", User: "ann", ID: "Ab-3_z", Until: noon.Add(time.Minute)}

// A slip is read by whom it was handed out to, for what and as what it was, until
// its end.
func TestSealOpensItsOwn(t *testing.T) {
	seal := NewSeal(secret)
	text := seal.Sign(aSlip)
	f := func(name string, by *Seal, kind SlipKind, text, activity, user string, now time.Time, want error) {
		t.Helper()
		slip, err := by.Open(kind, text, activity, user, now)
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if errors.Is(err, ErrForged) && slip != (Slip{}) {
			t.Errorf("%s: a forged slip was answered: %+v", name, slip)
		}
		if err == nil && (slip.Claim() != "t:Ab-3_z" || !slip.Until.Equal(aSlip.Until) || slip.User != user || slip.Activity != activity) {
			t.Errorf("%s: %+v", name, slip)
		}
	}
	end := aSlip.Until
	f("its own", seal, Ticket, text, "spring", "ann", noon, nil)
	f("at another gateway", NewSeal(secret), Ticket, text, "spring", "ann", noon, nil)
	f("in the last moment", seal, Ticket, text, "spring", "ann", end.Add(-time.Nanosecond), nil)
	f("at its end", seal, Ticket, text, "spring", "ann", end, ErrExpired)
	f("long after", seal, Ticket, text, "spring", "ann", end.Add(time.Hour), ErrExpired)
	f("of another user", seal, Ticket, text, "spring", "bob", noon, ErrForged)
	f("of nobody", seal, Ticket, text, "spring", "", noon, ErrForged)
	f("for another activity", seal, Ticket, text, "autumn", "ann", noon, ErrForged)
	f("both moved into one another", seal, Ticket, text, "springa", "nn", noon, ErrForged)
	f("a ticket as a pass", seal, Pass, text, "spring", "ann", noon, ErrForged)
	f("a ticket as a clearance", seal, Clearance, text, "spring", "ann", noon, ErrForged)
	f("another kind written over it", seal, Pass, "p"+text[1:], "spring", "ann", noon, ErrForged)
	f("of another shop", NewSeal([]byte(strings.Repeat("z", 32))), Ticket, text, "spring", "ann", noon, ErrForged)

	parts := strings.Split(text, ".")
	join := func(p ...string) string { return strings.Join(p, ".") }
	f("nothing", seal, Ticket, "", "spring", "ann", noon, ErrForged)
	f("a dot", seal, Ticket, ".", "spring", "ann", noon, ErrForged)
	f("no signature", seal, Ticket, join(parts[:3]...)+".", "spring", "ann", noon, ErrForged)
	f("signature left out", seal, Ticket, join(parts[:3]...), "spring", "ann", noon, ErrForged)
	f("cut", seal, Ticket, text[:len(text)-1], "spring", "ann", noon, ErrForged)
	f("longer", seal, Ticket, text+"A", "spring", "ann", noon, ErrForged)
	f("another id", seal, Ticket, join(parts[0], "Ab-3_y", parts[2], parts[3]), "spring", "ann", noon, ErrForged)
	f("a later end", seal, Ticket, join(parts[0], parts[1], parts[2]+"0", parts[3]), "spring", "ann", noon, ErrForged)
	f("a dot moved", seal, Ticket, join(parts[0], parts[1]+parts[2][:1], parts[2][1:], parts[3]), "spring", "ann", noon, ErrForged)
	f("a line break", seal, Ticket, join(parts[0], parts[1], parts[2], parts[3][:5]+"\n"+parts[3][5:]), "spring", "ann", noon, ErrForged)
	f("a line break at the end", seal, Ticket, text+"\r\n", "spring", "ann", noon, ErrForged)
	f("padded", seal, Ticket, text+"==", "spring", "ann", noon, ErrForged)
	f("endless", seal, Ticket, strings.Repeat("t.", 1<<20)+text, "spring", "ann", noon, ErrForged)
}

// Any byte of a slip that is any other byte makes it a forgery. So does each bit
// that base64 has no use for.
func TestEveryByteOfASlipCounts(t *testing.T) {
	seal := NewSeal(secret)
	text := []byte(seal.Sign(aSlip))
	for at, was := range text {
		for other := range 256 {
			if text[at] = byte(other); byte(other) == was {
				continue
			}
			if _, err := seal.Open(Ticket, string(text), "spring", "ann", noon); !errors.Is(err, ErrForged) {
				t.Fatalf("byte %d as %#x: %v", at, other, err)
			}
		}
		text[at] = was
	}
	if _, err := seal.Open(Ticket, string(text), "spring", "ann", noon); err != nil {
		t.Fatal(err)
	}
}

// Whatever the slip, it comes back as it was; no other one is written like it.
func TestSealRoundTrip(t *testing.T) {
	seal := NewSeal(secret)
	draw := func(t *rapid.T, name string) Slip {
		return Slip{
			Kind:     rapid.SampledFrom([]SlipKind{Ticket, Pass, Clearance}).Draw(t, name+" kind"),
			Activity: rapid.StringN(0, 3, 64).Draw(t, name+" activity"),
			User:     rapid.StringN(0, 3, 64).Draw(t, name+" user"),
			ID:       rapid.StringMatching(`[A-Za-z0-9_-]{1,40}`).Draw(t, name+" id"),
			Until:    noon.Add(time.Duration(rapid.Int64Range(1, 1<<31).Draw(t, name+" ms")) * time.Millisecond),
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		text := seal.Sign(a)
		if len(text) > maxSlip {
			t.Fatalf("%q has %d bytes", text, len(text))
		}
		got, err := seal.Open(a.Kind, text, a.Activity, a.User, noon)
		same := got.Until.Equal(a.Until)
		got.Until = a.Until
		if err != nil || !same || got != a {
			t.Fatalf("%+v came back as %+v, %v", a, got, err)
		}
		if other := seal.Sign(b); other == text && (a.Kind != b.Kind || a.ID != b.ID || a.Activity != b.Activity || a.User != b.User || !a.Until.Equal(b.Until)) {
			t.Fatalf("%+v and %+v are both %q", a, b, text)
		}
		if b.User != a.User || b.Activity != a.Activity || b.Kind != a.Kind {
			if _, err := seal.Open(b.Kind, text, b.Activity, b.User, noon); !errors.Is(err, ErrForged) {
				t.Fatalf("%+v was opened for %+v: %v", a, b, err)
			}
		}
	})
}

// What a shop signs as a token is no slip, though it is made with the same secret.
func TestTokensAreNoSlips(t *testing.T) {
	seal := NewSeal(secret)
	if _, err := seal.Open(Ticket, mint(t, "ann", time.Minute), "spring", "ann", noon); !errors.Is(err, ErrForged) {
		t.Error(err)
	}
}

func FuzzSealOpen(f *testing.F) {
	seal := NewSeal(secret)
	good := seal.Sign(aSlip)
	for _, text := range []string{"", ".", "..", "...", "t.a.1.", good, good[1:], good + "\n", "p" + good[1:], strings.ToUpper(good)} {
		f.Add(text, "spring", "ann")
	}
	f.Fuzz(func(t *testing.T, text, activity, user string) {
		slip, err := seal.Open(Ticket, text, activity, user, noon)
		if own := text == good && activity == "spring" && user == "ann"; own != (err == nil) {
			t.Errorf("%q for %q by %q: %+v, %v", text, activity, user, slip, err)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	seal := NewSeal(secret)
	text := seal.Sign(aSlip)
	for b.Loop() {
		if _, err := seal.Open(Ticket, text, "spring", "ann", noon); err != nil {
			b.Fatal(err)
		}
	}
}
