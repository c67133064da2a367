// Package outboxtest is the conformance suite of outbox.Queue, and of the
// relay on top of it: every backend passes it unchanged.
package outboxtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/internal/lib/outbox"
)

// Queue is a fresh, empty queue and the way messages get into it: put saves
// them in this order in one transaction, as a store would.
type Queue struct {
	outbox.Queue
	Put func(t *testing.T, messages ...outbox.Message)
}

// Run checks a queue. open is called once a test.
func Run(t *testing.T, open func(t *testing.T) Queue) {
	for name, f := range map[string]func(*testing.T, Queue){
		"order":              inOrder,
		"fields":             keepsFields,
		"retry blocks key":   retryBlocksKey,
		"dead blocks key":    deadBlocksKey,
		"ids never return":   idsNeverReturn,
		"unknown ids":        unknownIDs,
		"backlog":            backlog,
		"dead pages":         deadPages,
		"bounds":             bounds,
		"relay order":        relayOrder,
		"relay topics":       relayTopics,
		"relay panic":        relayPanic,
		"relay back-off":     relayBackoff,
		"relay away":         relayAway,
		"relay buried":       relayBuried,
		"relay redrive":      relayRedrive,
		"relay side by side": relaySideBySide,
		"relay stopping":     relayStopping,
		"relay fed again":    relayFedAgain,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

// message n of a key, at n milliseconds.
func message(key string, n int) outbox.Message {
	return outbox.Message{Key: key, Topic: fmt.Sprintf("t.%d", n), Body: fmt.Appendf(nil, `{"n":%d}`, n), At: int64(n)}
}

func pending(t *testing.T, q Queue, now int64, limit int) []outbox.Message {
	t.Helper()
	got, err := q.Pending(t.Context(), now, limit)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// topics of messages, as "key/topic".
func topics(messages []outbox.Message) []string {
	var s []string
	for _, m := range messages {
		s = append(s, m.Key+"/"+m.Topic)
	}
	return s
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func inOrder(t *testing.T, q Queue) {
	q.Put(t, message("b", 1), message("a", 2))
	q.Put(t, message("b", 3))
	all := pending(t, q, 0, 10)
	want(t, "pending", topics(all), []string{"b/t.1", "a/t.2", "b/t.3"})
	for i := 1; i < len(all); i++ {
		if all[i].ID <= all[i-1].ID {
			t.Errorf("id %d follows %d", all[i].ID, all[i-1].ID)
		}
	}
	want(t, "limit 2", topics(pending(t, q, 0, 2)), []string{"b/t.1", "a/t.2"})
	must(t, q.Done(t.Context(), []int64{all[0].ID, all[1].ID}))
	want(t, "after done", topics(pending(t, q, 0, 10)), []string{"b/t.3"})
	must(t, q.Done(t.Context(), []int64{all[0].ID})) // again is no error
	must(t, q.Done(t.Context(), nil))
}

func keepsFields(t *testing.T, q Queue) {
	in := outbox.Message{Key: "k", Topic: "order.paid", Body: []byte(`{"名":"✓"}`), At: 1_790_000_000_123}
	empty := outbox.Message{Key: "k2", Topic: "empty"}
	q.Put(t, in, empty)
	got := pending(t, q, 0, 10)
	for i := range got {
		got[i].ID = 0
	}
	if d := cmp.Diff([]outbox.Message{in, empty}, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("pending (-want +got):\n%s", d)
	}
	first := pending(t, q, 0, 1)[0].ID
	must(t, q.Retry(t.Context(), first, 50, "no route"))
	must(t, q.Retry(t.Context(), first, 60, "still no route"))
	again := pending(t, q, 60, 1)
	in.ID, in.Attempts, in.Reason = first, 2, "still no route"
	if d := cmp.Diff([]outbox.Message{in}, again); d != "" {
		t.Errorf("after two failures (-want +got):\n%s", d)
	}
}

func retryBlocksKey(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2), message("b", 3))
	first := pending(t, q, 0, 1)[0].ID
	must(t, q.Retry(t.Context(), first, 1000, "busy"))
	want(t, "hidden", topics(pending(t, q, 999, 10)), []string{"b/t.3"})
	// Due again, but what is behind it still waits for it.
	want(t, "due", topics(pending(t, q, 1000, 10)), []string{"a/t.1", "b/t.3"})
	q.Put(t, message("a", 4))
	want(t, "newer ones too", topics(pending(t, q, 1000, 10)), []string{"a/t.1", "b/t.3"})
	must(t, q.Done(t.Context(), []int64{first}))
	want(t, "done", topics(pending(t, q, 1000, 10)), []string{"a/t.2", "b/t.3", "a/t.4"})
}

func deadBlocksKey(t *testing.T, q Queue) {
	q.Put(t, message("a", 1), message("a", 2), message("b", 3))
	first := pending(t, q, 0, 1)[0].ID
	must(t, q.Bury(t.Context(), first, "never"))
	want(t, "dead", topics(pending(t, q, 1<<60, 10)), []string{"b/t.3"})
	dead, err := q.Dead(t.Context(), 0, 10)
	must(t, err)
	w := message("a", 1)
	w.ID, w.Attempts, w.Reason = first, 1, "never"
	if d := cmp.Diff([]outbox.Message{w}, dead); d != "" {
		t.Errorf("dead (-want +got):\n%s", d)
	}
	must(t, q.Redrive(t.Context(), first))
	again := pending(t, q, 0, 10)
	want(t, "redriven, in its old place", topics(again), []string{"a/t.1", "a/t.2", "b/t.3"})
	if again[0].ID != first || again[0].Attempts != 0 {
		t.Errorf("redriven message is %+v, want id %d and no attempts", again[0], first)
	}
	if dead, err = q.Dead(t.Context(), 0, 10); err != nil || len(dead) != 0 {
		t.Errorf("dead after redrive: %v, %v", dead, err)
	}
}

// Consumers remember ids, so an emptied queue must not begin anew.
func idsNeverReturn(t *testing.T, q Queue) {
	q.Put(t, message("a", 1))
	first := pending(t, q, 0, 1)[0].ID
	must(t, q.Done(t.Context(), []int64{first}))
	q.Put(t, message("a", 2))
	if second := pending(t, q, 0, 1)[0].ID; second <= first {
		t.Errorf("id %d after %d was done", second, first)
	}
}

func unknownIDs(t *testing.T, q Queue) {
	f := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, outbox.ErrNoSuchMessage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("retry", q.Retry(t.Context(), 7, 0, ""))
	f("bury", q.Bury(t.Context(), 7, ""))
	f("redrive", q.Redrive(t.Context(), 7))
	q.Put(t, message("a", 1))
	id := pending(t, q, 0, 1)[0].ID
	f("redrive of a living one", q.Redrive(t.Context(), id))
	must(t, q.Retry(t.Context(), id, 5, ""))
	f("redrive of a failed one", q.Redrive(t.Context(), id))
	must(t, q.Bury(t.Context(), id, ""))
	f("retry of a dead one", q.Retry(t.Context(), id, 0, ""))
	f("bury of a dead one", q.Bury(t.Context(), id, ""))
}

func backlog(t *testing.T, q Queue) {
	f := func(wantN int, wantOldest int64) {
		t.Helper()
		n, oldest, err := q.Backlog(t.Context())
		if err != nil || n != wantN || oldest != wantOldest {
			t.Errorf("backlog = %d, %d, %v; want %d, %d", n, oldest, err, wantN, wantOldest)
		}
	}
	f(0, 0)
	q.Put(t, message("a", 11), message("b", 12), message("c", 13))
	f(3, 11)
	all := pending(t, q, 0, 10)
	must(t, q.Bury(t.Context(), all[0].ID, ""))
	f(3, 11)
	must(t, q.Retry(t.Context(), all[1].ID, 99, ""))
	f(3, 11)
	must(t, q.Done(t.Context(), []int64{all[2].ID}))
	f(2, 11)
	must(t, q.Redrive(t.Context(), all[0].ID))
	must(t, q.Done(t.Context(), []int64{all[0].ID}))
	f(1, 12)
	must(t, q.Done(t.Context(), []int64{all[1].ID}))
	f(0, 0)
}

func deadPages(t *testing.T, q Queue) {
	for i := range 5 {
		q.Put(t, message(fmt.Sprint("k", i), i))
	}
	for _, m := range pending(t, q, 0, 10) {
		must(t, q.Bury(t.Context(), m.ID, "no"))
	}
	var got []string
	for after := int64(0); ; {
		page, err := q.Dead(t.Context(), after, 2)
		must(t, err)
		if len(page) > 2 {
			t.Fatalf("page of %d, limit 2", len(page))
		}
		if len(page) == 0 {
			break
		}
		got = append(got, topics(page)...)
		after = page[len(page)-1].ID
	}
	want(t, "dead", got, []string{"k0/t.0", "k1/t.1", "k2/t.2", "k3/t.3", "k4/t.4"})
}

func bounds(t *testing.T, q Queue) {
	for _, limit := range []int{-1, 0, 1_000_000} {
		if _, err := q.Pending(t.Context(), 0, limit); err == nil {
			t.Errorf("pending with limit %d: no error", limit)
		}
		if _, err := q.Dead(t.Context(), 0, limit); err == nil {
			t.Errorf("dead with limit %d: no error", limit)
		}
	}
}
