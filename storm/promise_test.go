package storm

import (
	"strings"
	"testing"
	"time"
)

// given in some state, in an epoch.
func (s *tale) receipt(n, epoch int, state string, seconds float64) Receipt {
	g := s.given(n, seconds)
	g.State = state
	g.Reservation = strings.Replace(g.Reservation, "a.0.1.", "a.0."+string(rune('0'+epoch))+".", 1)
	return g
}

func TestPromises(t *testing.T) {
	f := func(name, want string, history func(s *tale)) {
		t.Helper()
		s := newTale()
		history(s)
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: want a sentence with %q, got %q", name, want, got)
		}
	}
	// gets tells that user 1 got order n with the first key, at this second.
	gets := func(s *tale, n, epoch int, state string, seconds float64) *receipt {
		r, _ := s.o.accepted(tryID{1, 0}, s.receipt(n, epoch, state, 1), s.at(seconds))
		return r
	}
	look := func(s *tale, r *receipt, state string, seconds float64) {
		seen := r.given
		seen.State = state
		s.o.shown(r, "a look", seen, s.at(seconds-0.1), s.at(seconds))
	}

	f("pending, then held", "", func(s *tale) { look(s, gets(s, 1, 1, "pending", 1), "held", 2) })
	f("pending, then refused", "", func(s *tale) { look(s, gets(s, 1, 1, "pending", 1), "refused", 2) })
	f("held, then refused", "was promised by a receipt and is refused", func(s *tale) { look(s, gets(s, 1, 1, "held", 1), "refused", 2) })
	f("seen as held, then refused", "was promised by a receipt and is refused", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		look(s, r, "held", 2)
		s.o.finished(r, "a read", "refused", s.at(3))
	})
	f("refused, then held", "although it had been shown as refused by a look", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		look(s, r, "refused", 2)
		look(s, r, "held", 3)
	})
	f("refused, then pending again", "is shown as pending", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		look(s, r, "refused", 2)
		look(s, r, "pending", 3)
	})
	f("refused, then paid", "is paid although it had been shown as ended", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		look(s, r, "refused", 2)
		s.presses(r, buttonPay, 3)
		s.o.finished(r, "a read", "paid", s.at(3))
	})
	f("a refused one that says no more than its id", "", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		s.o.shown(r, "a look", Receipt{Reservation: r.given.Reservation, State: "refused"}, s.at(2), s.at(2))
	})
	f("a held one that says no more than its id", "is shown by a look as", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		s.o.shown(r, "a look", Receipt{Reservation: r.given.Reservation, State: "held"}, s.at(2), s.at(2))
	})
	f("another expiry once it has landed", "is shown by a look as", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		seen := s.receipt(1, 1, "held", 2)
		s.o.shown(r, "a look", seen, s.at(2), s.at(2))
	})

	f("three pending of two units", "", func(s *tale) {
		for n := 1; n <= 3; n++ {
			s.o.accepted(tryID{n, 0}, s.receipt(n, 1, "pending", 1), s.at(1))
		}
	})
	f("three held of two units", "oversold: 3", func(s *tale) {
		for n := 1; n <= 3; n++ {
			r, _ := s.o.accepted(tryID{n, 0}, s.receipt(n, 1, "pending", 1), s.at(1))
			look(s, r, "held", 2)
		}
	})
	f("sold_out while one is pending", "", func(s *tale) { gets(s, 1, 1, "pending", 1); s.o.soldOut(s.at(2), s.at(2)) })

	f("bought anew after a refusal", "", func(s *tale) {
		look(s, gets(s, 1, 1, "pending", 1), "refused", 2)
		look(s, gets(s, 2, 2, "pending", 3), "held", 4)
	})
	f("bought anew after a loss", "", func(s *tale) {
		old := gets(s, 1, 1, "pending", 1)
		look(s, gets(s, 2, 2, "held", 3), "held", 4)
		look(s, old, "refused", 5)
	})
	f("bought anew, and the old one is held, too", "although it had been shown as refused by its key", func(s *tale) {
		old := gets(s, 1, 1, "pending", 1)
		gets(s, 2, 2, "held", 3)
		look(s, old, "held", 4)
	})
	f("bought anew in the same epoch", "and reservation a.0.1.2", func(s *tale) { gets(s, 1, 1, "pending", 1); gets(s, 2, 1, "pending", 2) })
	f("bought anew although it was held", "and reservation a.0.2.2", func(s *tale) { gets(s, 1, 1, "held", 1); gets(s, 2, 2, "pending", 2) })
	f("an old reply that comes late", "", func(s *tale) { gets(s, 2, 2, "pending", 2); gets(s, 1, 1, "pending", 2.1) })
	f("an old reply that comes late and was held", "and reservation a.0.1.1", func(s *tale) { gets(s, 2, 2, "pending", 2); gets(s, 1, 1, "held", 2.1) })

	f("its key is refused, and it is lost", "", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		s.o.denied(r, "409 all_held")
		look(s, r, "refused", 2)
	})
	f("its key is refused, and it is held", "false refusal", func(s *tale) {
		r := gets(s, 1, 1, "pending", 1)
		s.o.denied(r, "409 all_held")
		look(s, r, "held", 2)
	})
	f("limited by a refused one", "had been shown as ended", func(s *tale) {
		look(s, gets(s, 1, 1, "pending", 1), "refused", 2)
		s.o.limited(tryID{1, 1}, s.at(3))
	})
	f("limited by a pending one", "", func(s *tale) { gets(s, 1, 1, "pending", 1); s.o.limited(tryID{1, 1}, s.at(3)) })

	f("accepted after sold_out", "accepted 1s after sold_out", func(s *tale) {
		s.o.hold = 5 * time.Second
		s.o.soldOut(s.at(1), s.at(1))
		s.o.accepted(tryID{1, 0}, s.given(1, 2), s.at(2))
	})
	f("accepted before sold_out, and told after", "", func(s *tale) {
		s.o.hold = 5 * time.Second
		s.o.soldOut(s.at(2), s.at(2))
		s.o.accepted(tryID{1, 0}, s.given(1, 1.9), s.at(4))
	})
	bothSold := func(s *tale) { s.pays(s.buys(1, 1, 1), 2); s.pays(s.buys(2, 2, 1), 2) }
	f("all_held when all are sold", "all_held was told 1s after the last of 2 units", func(s *tale) { bothSold(s); s.o.allHeld(s.at(3)) })
	f("all_held before all were sold", "", func(s *tale) { bothSold(s); s.o.allHeld(s.at(1.9)) })
	f("all_held when one is sold", "", func(s *tale) { s.pays(s.buys(1, 1, 1), 2); s.o.allHeld(s.at(3)) })
	f("all_held within the lag", "", func(s *tale) { s.o.lag = 2 * time.Second; bothSold(s); s.o.allHeld(s.at(3)) })
	f("all_held while a part was away", "", func(s *tale) {
		s.o.troubles.begin(s.at(1.5))
		bothSold(s)
		s.o.allHeld(s.at(3))
		s.o.troubles.end(s.at(4))
		s.o.allHeld(s.at(3.9))
	})
	f("all_held when it was back", "all_held was told", func(s *tale) {
		s.o.troubles.begin(s.at(1.5))
		bothSold(s)
		s.o.troubles.end(s.at(4))
		s.o.allHeld(s.at(4.1))
	})

	torn := item{Allocated: 3, Free: 2, Held: 1}
	f("counts of several moments", "", func(s *tale) {
		s.o.buckets = 2
		for range tornLimit - 1 {
			s.o.sample(torn, false)
		}
		s.o.sample(item{Allocated: 2, Free: 1, InTransit: 1}, false)
		s.o.sample(torn, false)
	})
	f("counts of one bucket", "do not add up", func(s *tale) { s.o.sample(torn, false) })
	f("counts of several moments at rest", "do not add up", func(s *tale) { s.o.buckets = 2; s.o.sample(torn, true) })
	f("counts that stay too many", "do not add up", func(s *tale) {
		s.o.buckets = 2
		for range tornLimit {
			s.o.sample(torn, false)
		}
	})
	f("counts that are too few", "do not add up", func(s *tale) { s.o.buckets = 2; s.o.sample(item{Allocated: 1, Free: 1}, false) })
	f("the proof says one thing again and again", "proof: 2 units", func(s *tale) {
		s.o.proofSaid([]string{"2 units"})
		s.o.proofSaid([]string{"2 units"})
		if n := len(s.o.broken.list()); n != 1 {
			s.o.broken.add("%d sentences", n)
		}
	})
}

// What is left of pending receipts when all is at rest.
func TestAuditOfPromises(t *testing.T) {
	f := func(name, want, first, later, row string) {
		t.Helper()
		s := newTale()
		r, _ := s.o.accepted(tryID{1, 0}, s.receipt(1, 1, first, 1), s.at(1))
		if later != "" {
			s.o.shown(r, "a look", Receipt{r.given.Reservation, r.given.Order, later, r.given.ExpiresAt, r.given.Total}, s.at(2), s.at(2))
		}
		var rows []Order
		if row != "" {
			rows = append(rows, s.row(r, row))
		}
		s.o.audit(s.facts(rows...))
		got := strings.Join(s.o.broken.list(), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: want a sentence with %q, got %q", name, want, got)
		}
	}
	f("held", "", "pending", "held", "created")
	f("held and gone", "lost order", "pending", "held", "")
	f("held and refused", "promised by a receipt and is refused", "pending", "held", "refused")
	f("refused", "", "pending", "refused", "refused")
	f("refused without a row", "", "pending", "refused", "")
	f("refused and created", "is created although it had been shown as refused", "pending", "refused", "created")
	f("pending for ever", "the shop never said whether it is held (created in the end)", "pending", "", "created")
	f("pending for ever, without a row", "(not there in the end)", "pending", "", "")

	// A refused order of a request without an answer may have lost its key.
	for _, asked := range []bool{true, false} {
		s := newTale()
		if asked {
			s.o.unanswered(tryID{7, 0})
		}
		s.o.audit(s.facts(Order{ID: "7", Reservation: "a.0.1.7", User: userName(7), Key: "refused:1.7", State: "refused", Total: Money{price, currency}}))
		if got := s.o.broken.list(); (len(got) == 0) != asked {
			t.Errorf("asked %v: %q", asked, got)
		}
	}
}

func TestBucketOf(t *testing.T) {
	f := func(user string, n, want int) {
		t.Helper()
		if got := bucketOf(user, n); got != want {
			t.Errorf("%s in %d buckets is in %d, want %d", user, n, got, want)
		}
	}
	// FNV-1a in 32 bits of "" is 0x811c9dc5, of "a" 0xe40c292c, of "foobar" 0xbf9cf968;
	// mixed these are 0xab3e7c0b, 0x1a80b1b3 and 0x0c0da6dc.
	f("", 256, 0x0b)
	f("a", 256, 0xb3)
	f("foobar", 256, 0xdc)
	f("foobar", 16, 12)
	f("foobar", 1, 0)
	f("foobar", 0, 0)
	if p, ok := placeOf("storm-x.y.7.12.9"); !ok || p != (place{7, 12}) {
		t.Errorf("place %v, %v", p, ok)
	}
	for _, bad := range []string{"", "a.b.c", "a.b.c.d"} {
		if p, ok := placeOf(bad); ok {
			t.Errorf("%q is at %v", bad, p)
		}
	}
}
