package sqlstore

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"sluice/internal/lib/outbox"
	"sluice/internal/lib/outbox/outboxtest"
	"sluice/test/servers"
)

func TestInbox(t *testing.T) {
	open := func(t *testing.T) *Store { return openStore(t) }
	checkInbox(t, open)
}

func TestInboxOnServer(t *testing.T) {
	d := servers.MariaDB(t)
	checkInbox(t, func(t *testing.T) *Store { return onServer(t, d, servers.SQLDatabase, "") })
}

func checkInbox(t *testing.T, open func(t *testing.T) *Store) {
	t.Run("queue", func(t *testing.T) {
		outboxtest.Run(t, func(t *testing.T) outboxtest.Queue {
			in, last := open(t).Inbox("r"), int64(0)
			return outboxtest.Queue{Queue: in, Put: func(t *testing.T, messages ...outbox.Message) {
				t.Helper()
				waiting := make([]outbox.Waiting, len(messages))
				for n, m := range messages {
					last++
					m.ID = last
					waiting[n] = outbox.Waiting{Message: m}
				}
				must(t, in.Keep(t.Context(), nil, waiting))
			}}
		})
	})
	for name, f := range map[string]func(*testing.T, *Store){
		"keep": checkKeep, "delayed": checkDelayed, "apply": checkApply, "trim": checkTrimConsumed,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

// The embedded bus is the outbox and its relay.
func TestEmbeddedBus(t *testing.T) {
	outboxtest.RunBus(t, func(t *testing.T, setup outboxtest.Setup) outboxtest.Bus {
		s := openStore(t)
		relay := outbox.New(s, setup.Handlers, setup.Now, func() float64 { return 0 }, slog.New(slog.DiscardHandler), setup.Options)
		return outboxtest.Bus{Step: relay.Step, Left: s, Put: func(t *testing.T, messages ...outbox.Message) {
			t.Helper()
			put(t, s, messages...)
		}}
	})
}

func parked(id int64, key string, next int64) outbox.Waiting {
	return outbox.Waiting{Message: outbox.Message{ID: id, Key: key, Topic: "t"}, Next: next}
}

func ids(t *testing.T, q outbox.Queue, now int64) (list []int64) {
	t.Helper()
	page, err := q.Pending(t.Context(), now, 10)
	must(t, err)
	for _, m := range page {
		list = append(list, m.ID)
	}
	return list
}

func checkKeep(t *testing.T, s *Store) {
	in, other := s.Inbox("a"), s.Inbox("b")
	must(t, in.Keep(t.Context(), []int64{1, 2}, []outbox.Waiting{parked(3, "k", 0), parked(2, "k", 0)}))
	must(t, in.Keep(t.Context(), []int64{2}, []outbox.Waiting{parked(3, "k", 99)})) // again
	f := func(in *Inbox, wantConsumed []int64, wantWaiting bool) {
		t.Helper()
		consumed, waiting, err := in.Look(t.Context(), []outbox.Message{{ID: 1, Key: "k"}, {ID: 2, Key: "k"}, {ID: 3, Key: "k"}, {ID: 4, Key: "l"}})
		must(t, err)
		for id := int64(1); id <= 4; id++ {
			if consumed[id] != slices.Contains(wantConsumed, id) {
				t.Errorf("%s: consumed %v, want %v", in.reader, consumed, wantConsumed)
			}
		}
		if waiting["k"] != wantWaiting || waiting["l"] {
			t.Errorf("%s: waiting %v", in.reader, waiting)
		}
	}
	f(in, []int64{1, 2}, true)
	f(other, nil, false)
	equal(t, "pending", ids(t, in, 0), []int64{3})
	must(t, in.Done(t.Context(), []int64{3}))
	f(in, []int64{1, 2, 3}, false)
	if _, _, err := in.Look(t.Context(), make([]outbox.Message, maxMessages+1)); err == nil {
		t.Error("looked for too many at once")
	}
}

// What is delayed holds back what is behind it in its key.
func checkDelayed(t *testing.T, s *Store) {
	in := s.Inbox("a")
	must(t, in.Keep(t.Context(), nil, []outbox.Waiting{parked(1, "k", 100), parked(2, "k", 0), parked(3, "l", 0)}))
	equal(t, "before", ids(t, in, 99), []int64{3})
	equal(t, "after", ids(t, in, 100), []int64{1, 2, 3})
}

// Many deliver the same message at once: its effect is there once. Without
// Apply it is there as often as it was delivered.
func checkApply(t *testing.T, s *Store) {
	in := s.Inbox("a")
	effect := func(tx Tx) error {
		_, err := tx.Exec("INSERT INTO notifications (id, user, topic, at, body) SELECT count(*) + 1, 'u', 't', 0, '' FROM notifications")
		return raced(err)
	}
	count := func() int {
		t.Helper()
		page, err := s.Notifications(t.Context(), "u", 0, 500)
		must(t, err)
		return len(page)
	}
	deliver := func(deliver func() error) {
		t.Helper()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := deliver(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	deliver(func() error {
		_, err := in.Apply(t.Context(), 1, effect)
		return err
	})
	if n := count(); n != 1 {
		t.Errorf("effects: %d, want 1", n)
	}
	refused := errors.New("refused")
	if applied, err := in.Apply(t.Context(), 2, func(Tx) error { return refused }); applied || !errors.Is(err, refused) {
		t.Errorf("refused effect: %v, %v", applied, err)
	}
	if applied, err := in.Apply(t.Context(), 2, effect); !applied || err != nil {
		t.Errorf("after a refused one: %v, %v", applied, err)
	}
	deliver(func() error {
		return s.writing(t.Context(), "unguarded", func(c *conn) error { return effect(Tx{c}) })
	})
	if n := count(); n != 10 {
		t.Errorf("effects: %d, want 2, and 8 of one message without the guard", n)
	}
}

// Dead letters of an outbox and of two readers are one list.
func TestLetters(t *testing.T) {
	s := openStore(t)
	a, b := s.Inbox("a"), s.Inbox("b")
	dead := func(id int64) outbox.Waiting { return parked(id, "k", outbox.Never) }
	put(t, s, outbox.Message{Key: "k", Topic: "t"}) // 1
	must(t, s.Bury(t.Context(), 1, "unsendable"))
	must(t, a.Keep(t.Context(), nil, []outbox.Waiting{dead(2), dead(4), dead(1 << 62)}))
	must(t, b.Keep(t.Context(), nil, []outbox.Waiting{dead(3), dead(4)}))
	all := outbox.Letters{s, a, b}
	f := func(after int64, limit int, want ...int64) {
		t.Helper()
		page, err := all.Dead(t.Context(), after, limit)
		must(t, err)
		var got []int64
		for _, m := range page {
			got = append(got, m.ID)
		}
		equal(t, "dead", got, want)
	}
	f(0, 10, 1, 2, 3, 4, 4, 1<<62)
	f(0, 2, 1, 2)
	f(2, 2, 3, 4, 4)
	f(4, 2, 1<<62)
	must(t, all.Redrive(t.Context(), 4))
	must(t, all.Redrive(t.Context(), 1))
	f(0, 10, 2, 3, 1<<62)
	if err := all.Redrive(t.Context(), 4); !errors.Is(err, outbox.ErrNoSuchMessage) {
		t.Errorf("redrive of a living one: %v", err)
	}
}

func checkTrimConsumed(t *testing.T, s *Store) {
	in := s.Inbox("a")
	must(t, in.Keep(t.Context(), []int64{1, 2, 3}, nil))
	f := func(before int64, limit int, want bool, left ...int64) {
		t.Helper()
		worked, err := in.Trim(t.Context(), before, limit)
		must(t, err)
		consumed, _, err := in.Look(t.Context(), []outbox.Message{{ID: 1}, {ID: 2}, {ID: 3}})
		must(t, err)
		if worked != want || len(consumed) != len(left) {
			t.Errorf("trim before %d: %v, left %v; want %v, %v", before, worked, consumed, want, left)
		}
	}
	f(1, 10, false, 1, 2, 3)
	f(1<<60, 2, true, 3)
	f(1<<60, 2, true)
	f(1<<60, 2, false)
}
