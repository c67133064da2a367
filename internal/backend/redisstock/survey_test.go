package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/internal/backend/redisstock"
	"sluice/internal/stock"
	"sluice/internal/stock/stocktest"
	"sluice/test/servers"
)

// scene is an activity whose buckets have one unit each, and hands that change
// them while somebody else reads.
type scene struct {
	*served
	t       testing.TB
	a       stock.ActivityID
	buckets uint16
	keys    int
}

// user is one of a bucket's users.
func (s *scene) user(bucket uint16, n int) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("u%d-%d", n, i)
		if stock.BucketOf(stock.UserID(name), s.buckets) == bucket {
			return name
		}
	}
}

func (s *scene) buy(bucket uint16) stock.Receipt {
	s.t.Helper()
	s.keys++
	r, err := s.Ledger.Reserve(s.t.Context(), stocktest.Request(string(s.a), s.user(bucket, s.keys), "k", 1))
	if err != nil {
		s.t.Errorf("buy in bucket %d: %v", bucket, err)
	}
	return r
}

func (s *scene) end(r stock.Receipt, as stock.Outcome) {
	s.t.Helper()
	if _, err := s.Settle(s.t.Context(), stock.Settlement{ID: r.ID, User: r.User, Outcome: as}); err != nil {
		s.t.Errorf("%s of %s: %v", as, r.ID, err)
	}
}

func (s *scene) debit(from, to uint16) stock.Move {
	s.t.Helper()
	m := stock.Move{ID: fmt.Sprintf("m%d%d", from, to), Activity: s.a, SKU: "s", Units: 1, From: from, To: to}
	if err := redisstock.Debit(s.t.Context(), s.Ledger, m); err != nil {
		s.t.Error(err)
	}
	return m
}

func (s *scene) credit(m stock.Move) {
	s.t.Helper()
	if err := s.Credit(s.t.Context(), m, 0); err != nil {
		s.t.Error(err)
	}
}

// moments are what happens before the command with a number, while buckets are
// read in turn: 0 and so on the first time, then the second time.
type moments map[int]func()

// Buckets are read one after another, and what is read is no longer so when the
// next one is read. Sums of one reading are wrong then, and so are two readings
// that are equal; nobody is refused by either.
func TestRefusedByOneMoment(t *testing.T) {
	server := servers.Redis(t)
	all, sold := stock.ErrAllHeld, stock.ErrSoldOut
	f := func(name string, buckets uint16, quantity int, careless []error, want error, plant func(s *scene) moments) {
		t.Run(name, func(t *testing.T) {
			ready := func(a string) (*scene, *redisstock.Ledger) {
				t.Helper()
				l := connect(t, server, "", redisstock.Options{CallerTime: true})
				s := &scene{served: &served{l, newKeeper(t, l)}, t: t, a: stock.ActivityID(a), buckets: buckets}
				open(t, s.served, spread(a, int(buckets), 0, buckets))
				when := plant(s)
				reader := connect(t, server, "", redisstock.Options{CallerTime: true, PullWithin: 200 * time.Millisecond})
				redisstock.InTurn(reader, func(n int) {
					if when[n] != nil {
						when[n]()
					}
				})
				return s, reader
			}
			s, reader := ready(name + " by sums")
			for _, wrong := range careless {
				err := redisstock.Missing(t.Context(), reader, s.a, []stock.Line{{SKU: "s", Quantity: quantity}}, true)
				if !errors.Is(err, wrong) {
					t.Errorf("one reading says %v, and should be wrong by %v: this test shows nothing", err, wrong)
				}
			}
			s, reader = ready(name)
			if want == nil {
				defer s.k.serve(s.a)()
			}
			if _, err := reader.Reserve(t.Context(), stocktest.Request(name, s.user(0, 99), "k", quantity)); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
	f("free in turn", 2, 1, []error{all}, nil, func(s *scene) moments {
		a := s.buy(0)
		return moments{1: func() { s.end(a, stock.Released); s.buy(1) }}
	})
	f("free in turn and equal again", 2, 1, []error{all, all}, nil, func(s *scene) moments {
		a := s.buy(0)
		var b stock.Receipt
		return moments{
			1: func() { s.end(a, stock.Released); b = s.buy(1) },
			2: func() { s.end(b, stock.Released); a = s.buy(0) },
			3: func() { s.end(a, stock.Released); s.buy(1) },
		}
	})
	f("fewer in turn", 3, 2, []error{stock.ErrInsufficient}, nil, func(s *scene) moments {
		a := s.buy(0)
		return moments{1: func() { s.end(a, stock.Released); s.buy(1) }}
	})
	f("given back and then paid", 2, 1, []error{sold}, nil, func(s *scene) moments {
		a, b := s.buy(0), s.buy(1)
		s.end(a, stock.Confirmed)
		return moments{1: func() { s.end(a, stock.Returned); s.end(b, stock.Confirmed) }}
	})
	f("given back before the last is paid", 2, 1, nil, nil, func(s *scene) moments {
		a, b := s.buy(0), s.buy(1)
		s.end(a, stock.Confirmed)
		return moments{3: func() { s.end(a, stock.Returned); s.end(b, stock.Confirmed) }}
	})
	f("one arrives in the place of one that is sold", 2, 2, nil, nil, func(s *scene) moments {
		s.k.pause()
		var a stock.Receipt
		m := s.debit(1, 0)
		return moments{2: func() { a = s.buy(0); s.credit(m) }, 5: func() { s.end(a, stock.Released) }} // 4 asks for entries
	})
	f("two moves that cancel", 4, 1, []error{all}, stock.ErrNotReady, func(s *scene) moments {
		a := s.buy(0)
		s.buy(1)
		s.buy(3)
		return moments{
			1: func() { s.end(a, stock.Released); s.credit(s.debit(0, 1)); s.buy(1) },
			2: func() { s.debit(2, 3) },
		}
	})
	f("moved and taken", 4, 1, nil, all, func(s *scene) moments {
		a := s.buy(0)
		s.buy(1)
		s.buy(2)
		s.buy(3)
		return moments{1: func() { s.end(a, stock.Released); s.credit(s.debit(0, 1)); s.buy(1) }}
	})
	f("the last is paid between the readings", 2, 1, nil, sold, func(s *scene) moments {
		a, b := s.buy(0), s.buy(1)
		s.end(b, stock.Confirmed)
		return moments{2: func() { s.end(a, stock.Confirmed) }}
	})
}

// A unit goes round the buckets and is free somewhere all the time: whenever it
// is looked, nobody is refused for want of one.
func TestNeverRefusedWhileOneIsFree(t *testing.T) {
	server := servers.Redis(t)
	l := connect(t, server, "", redisstock.Options{CallerTime: true})
	s := &scene{served: &served{l, newKeeper(t, l)}, t: t, a: "round", buckets: 4}
	open(t, s.served, spread("round", 4, 0, 4))
	held := []stock.Receipt{s.buy(0), s.buy(1), s.buy(2), {}}
	ctx, stop := context.WithCancel(t.Context())
	wrong := map[bool]int{}
	var readers sync.WaitGroup
	var mu sync.Mutex
	looks := 0
	for _, careless := range []bool{false, true} {
		reader := connect(t, server, "", redisstock.Options{CallerTime: true})
		redisstock.InTurn(reader, func(int) {}) // or one server would read them all at one instant
		readers.Go(func() {
			for ctx.Err() == nil {
				err := redisstock.Missing(t.Context(), reader, "round", []stock.Line{{SKU: "s", Quantity: 1}}, careless)
				mu.Lock()
				if err != nil && !errors.Is(err, stock.ErrNotReady) {
					wrong[careless]++
				}
				if err == nil && !careless {
					looks++
				}
				mu.Unlock()
			}
		})
	}
	for i := range 4000 { // free in bucket i-1 before and in bucket i after
		s.end(held[i%4], stock.Released)
		held[(i+3)%4] = s.buy(uint16(i+3) % 4)
	}
	stop()
	readers.Wait()
	t.Logf("found %d times; refused wrongly %d times, by sums of one reading %d times", looks, wrong[false], wrong[true])
	if wrong[false] != 0 || wrong[true] == 0 || looks == 0 {
		t.Error("a unit is free all the time")
	}
}
