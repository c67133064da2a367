// Package linetest is what every waiting.Line and every waiting.Presence must
// pass, and a Line in memory for tests that need no durable one.
package linetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/gate/waiting"
)

// Run checks a Line. open answers one that is empty.
func Run(t *testing.T, open func(t *testing.T) waiting.Line) {
	for name, f := range map[string]func(*testing.T, waiting.Line){
		"rooms":            rooms,
		"numbers":          numbers,
		"names":            names,
		"full":             full,
		"another number":   another,
		"progress":         progress,
		"entries":          entries,
		"dropped":          dropped,
		"joins at once":    joinsAtOnce,
		"advances at once": advancesAtOnce,
		"rejoins at once":  rejoinsAtOnce,
		"given up":         givenUp,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// entry is an id made of a text.
func entry(text string) (e waiting.EntryID) {
	copy(e[:], text)
	return e
}

func opened(t *testing.T, l waiting.Line, activity string) waiting.Room {
	t.Helper()
	r, err := l.Open(t.Context(), activity, waiting.Seed{1, 255, 0, 7}, 12)
	must(t, err)
	return r
}

// join joins as somebody new or known, and checks what is answered.
func join(t *testing.T, l waiting.Line, activity, user string, id string, instead, want int, wantEntry string) {
	t.Helper()
	n, given, err := l.Join(t.Context(), activity, user, entry(id), instead, waiting.MaxJoined)
	if err != nil || n != want || given != entry(wantEntry) {
		t.Errorf("%s joins %s: number %d, entry %q, %v; want %d, %q", user, activity, n, bytes.TrimRight(given[:], "\x00"), err, want, wantEntry)
	}
}

func find(t *testing.T, l waiting.Line, activity, user string, want int, wantEntry string) {
	t.Helper()
	n, given, err := l.Find(t.Context(), activity, user)
	if err != nil || n != want || given != entry(wantEntry) {
		t.Errorf("%s in %s: number %d, entry %x, %v; want %d, %q", user, activity, n, given, err, want, wantEntry)
	}
}

// A room is opened once, and keeps the seed it was opened with.
func rooms(t *testing.T, l waiting.Line) {
	_, err := l.Room(t.Context(), "a")
	is(t, "no room", err, waiting.ErrNoRoom)
	want := waiting.Room{Activity: "a", Seed: waiting.Seed{1, 255, 0, 7}, OpenedAt: 12}
	equal(t, "opened", opened(t, l, "a"), want)
	again, err := l.Open(t.Context(), "a", waiting.Seed{2}, 13)
	must(t, err)
	equal(t, "opened again", again, want)
	got, err := l.Room(t.Context(), "a")
	must(t, err)
	equal(t, "read", got, want)
	other, err := l.Open(t.Context(), "A", waiting.Seed{2}, 13)
	must(t, err)
	equal(t, "another", other, waiting.Room{Activity: "A", Seed: waiting.Seed{2}, OpenedAt: 13})
}

// Numbers rise by one; whoever joins again has the number he has.
func numbers(t *testing.T, l waiting.Line) {
	_, _, err := l.Join(t.Context(), "a", "ann", entry("x"), -1, 10)
	is(t, "join without a room", err, waiting.ErrNoRoom)
	_, _, err = l.Find(t.Context(), "a", "ann")
	is(t, "find without a room", err, waiting.ErrNotWaiting)
	opened(t, l, "a")
	opened(t, l, "b")
	_, _, err = l.Find(t.Context(), "a", "ann")
	is(t, "find before joining", err, waiting.ErrNotWaiting)
	join(t, l, "a", "ann", "a0", -1, 0, "a0")
	join(t, l, "a", "bob", "a1", -1, 1, "a1")
	join(t, l, "a", "ann", "a2", -1, 0, "a0")
	join(t, l, "b", "bob", "b0", -1, 0, "b0")
	join(t, l, "a", "cat", "a3", -1, 2, "a3")
	find(t, l, "a", "ann", 0, "a0")
	find(t, l, "a", "cat", 2, "a3")
	find(t, l, "b", "bob", 0, "b0")
	_, _, err = l.Find(t.Context(), "b", "ann")
	is(t, "in another room", err, waiting.ErrNotWaiting)
	r, err := l.Room(t.Context(), "a")
	must(t, err)
	equal(t, "joined, and revision", []int64{int64(r.Joined), r.Revision}, []int64{3, 0})
}

// Users and activities are told apart by every byte.
func names(t *testing.T, l waiting.Line) {
	users := []string{"u", "U", "u ", "u:1", "u:1:2", "u{1}", "ü", "u\x00", "\xff\xfe", "*", strings.Repeat("n", 64)}
	for _, activity := range []string{"a", "a:u", "a-1", "a-10"} {
		opened(t, l, activity)
		for i, user := range users {
			join(t, l, activity, user, fmt.Sprint(activity, i), -1, i, fmt.Sprint(activity, i))
		}
	}
	for i, user := range users {
		find(t, l, "a-1", user, i, fmt.Sprint("a-1", i))
	}
}

// A full room gives out nothing more, and takes nothing away.
func full(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	for i := range 3 {
		_, _, err := l.Join(t.Context(), "a", fmt.Sprint(i), entry(fmt.Sprint(i)), -1, 3)
		must(t, err)
	}
	_, _, err := l.Join(t.Context(), "a", "late", entry("late"), -1, 3)
	is(t, "join a full room", err, waiting.ErrFull)
	_, _, err = l.Join(t.Context(), "a", "1", entry("more"), 1, 3)
	is(t, "another number of a full room", err, waiting.ErrFull)
	_, _, err = l.Find(t.Context(), "a", "late")
	is(t, "find who was refused", err, waiting.ErrNotWaiting)
	if n, given, err := l.Join(t.Context(), "a", "1", entry("x"), -1, 3); n != 1 || given != entry("1") || err != nil {
		t.Errorf("joins again: %d, %x, %v", n, given, err)
	}
	find(t, l, "a", "1", 1, "1")
	join(t, l, "a", "late", "late", -1, 3, "late") // more are admitted now
}

// Who says that his number is of no use gets another, once.
func another(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	join(t, l, "a", "ann", "first", -1, 0, "first")
	join(t, l, "a", "bob", "bob", -1, 1, "bob")
	join(t, l, "a", "ann", "second", 0, 2, "second")
	join(t, l, "a", "ann", "third", 0, 2, "second") // said again: it has happened
	join(t, l, "a", "ann", "third", -1, 2, "second")
	join(t, l, "a", "ann", "third", 1, 2, "second") // another's number
	find(t, l, "a", "ann", 2, "second")
	join(t, l, "a", "new", "new", 0, 3, "new") // has none to give up
	join(t, l, "a", "ann", "fourth", 2, 4, "fourth")
	find(t, l, "a", "ann", 4, "fourth")
	find(t, l, "a", "bob", 1, "bob")
	got, err := l.Entries(t.Context(), "a", 0, 10)
	must(t, err)
	equal(t, "entries", got, []waiting.EntryID{entry("first"), entry("bob"), entry("second"), entry("new"), entry("fourth")})
}

// busy is the largest progress there is.
func busy(head int) waiting.Progress {
	p := waiting.Progress{DrawnAt: 1_700_000_000_000, Drawn: 5, Digest: bytes.Repeat([]byte{0, 255, '"'}, 11)[:32], Head: head, Called: head - 1,
		Over: true, Rate: 12.5, Outstanding: 3, Concluded: 4, Taken: 2}
	for i := range waiting.MaxSteps {
		p.Steps = append(p.Steps, waiting.Step{Head: i, Called: i / 2, At: 1_700_000_000_000 + waiting.Millis(i)})
	}
	return p
}

// Progress is replaced as a whole, by whoever knows the latest.
func progress(t *testing.T, l waiting.Line) {
	_, err := l.Advance(t.Context(), "a", 0, busy(1))
	is(t, "advance without a room", err, waiting.ErrNoRoom)
	opened(t, l, "a")
	opened(t, l, "b")
	join(t, l, "a", "ann", "x", -1, 0, "x")
	want := waiting.Room{Activity: "a", Seed: waiting.Seed{1, 255, 0, 7}, OpenedAt: 12, Joined: 1, Revision: 1, Progress: busy(3)}
	got, err := l.Advance(t.Context(), "a", 0, busy(3))
	must(t, err)
	equal(t, "advanced", got, want)
	_, err = l.Advance(t.Context(), "a", 0, busy(9))
	is(t, "advance from the past", err, waiting.ErrMoved)
	_, err = l.Advance(t.Context(), "a", 2, busy(9))
	is(t, "advance from the future", err, waiting.ErrMoved)
	join(t, l, "a", "bob", "y", -1, 1, "y") // joining moves no revision
	want.Joined, want.Revision, want.Progress = 2, 2, waiting.Progress{Head: 4}
	got, err = l.Advance(t.Context(), "a", 1, want.Progress)
	must(t, err)
	equal(t, "advanced again", got, want)
	got, err = l.Room(t.Context(), "a")
	must(t, err)
	equal(t, "read", got, want)
	got, err = l.Open(t.Context(), "a", waiting.Seed{9}, 99)
	must(t, err)
	equal(t, "opened again", got, want)
	got, err = l.Room(t.Context(), "b")
	must(t, err)
	equal(t, "the other", got, waiting.Room{Activity: "b", Seed: waiting.Seed{1, 255, 0, 7}, OpenedAt: 12})
}

// Entries come in the order of numbers, page by page.
func entries(t *testing.T, l waiting.Line) {
	page := func(from, limit int, want ...string) {
		t.Helper()
		got, err := l.Entries(t.Context(), "a", from, limit)
		must(t, err)
		if len(got) != len(want) {
			t.Fatalf("%d entries from %d, want %d", len(got), from, len(want))
		}
		for i := range want {
			if got[i] != entry(want[i]) {
				t.Errorf("entry %d is %x, want %q", from+i, got[i], want[i])
			}
		}
	}
	page(0, 10)
	opened(t, l, "a")
	opened(t, l, "b")
	page(0, 10)
	for i := range 5 {
		join(t, l, "a", fmt.Sprint("u", i), fmt.Sprint("e", i), -1, i, fmt.Sprint("e", i))
	}
	join(t, l, "b", "u", "other", -1, 0, "other")
	page(0, 10_000, "e0", "e1", "e2", "e3", "e4")
	page(0, 2, "e0", "e1")
	page(3, 2, "e3", "e4")
	page(4, 2, "e4")
	page(5, 2)
	page(1000, 2)
}

// Nothing is left of a room that was dropped.
func dropped(t *testing.T, l waiting.Line) {
	must(t, l.Drop(t.Context(), "a"))
	opened(t, l, "a")
	opened(t, l, "b")
	for i := range 20 {
		join(t, l, "a", fmt.Sprint(i), fmt.Sprint(i), -1, i, fmt.Sprint(i))
	}
	join(t, l, "b", "ann", "b", -1, 0, "b")
	_, err := l.Advance(t.Context(), "a", 0, busy(3))
	must(t, err)
	must(t, l.Drop(t.Context(), "a"))
	must(t, l.Drop(t.Context(), "a"))
	_, err = l.Room(t.Context(), "a")
	is(t, "room", err, waiting.ErrNoRoom)
	_, _, err = l.Find(t.Context(), "a", "7")
	is(t, "find", err, waiting.ErrNotWaiting)
	got, err := l.Entries(t.Context(), "a", 0, 10)
	if err != nil || len(got) != 0 {
		t.Errorf("entries: %v, %v", got, err)
	}
	_, _, err = l.Join(t.Context(), "a", "7", entry("x"), -1, 10)
	is(t, "join", err, waiting.ErrNoRoom)
	find(t, l, "b", "ann", 0, "b")
	equal(t, "opened anew", opened(t, l, "a"), waiting.Room{Activity: "a", Seed: waiting.Seed{1, 255, 0, 7}, OpenedAt: 12})
	_, _, err = l.Find(t.Context(), "a", "7")
	is(t, "find in the new room", err, waiting.ErrNotWaiting)
	join(t, l, "a", "7", "new", -1, 0, "new")
}

// Of many who join at once, each several times, each has one number and each
// number is somebody's.
func joinsAtOnce(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	const users, times = 60, 3
	var given [users * times]int
	var all sync.WaitGroup
	for i := range given {
		all.Go(func() {
			n, _, err := l.Join(t.Context(), "a", fmt.Sprint(i%users), entry(fmt.Sprint(i)), -1, waiting.MaxJoined)
			if err != nil {
				t.Error(err)
			}
			given[i] = n
		})
	}
	all.Wait()
	r, err := l.Room(t.Context(), "a")
	must(t, err)
	list, err := l.Entries(t.Context(), "a", 0, 10_000)
	must(t, err)
	if r.Joined != users || len(list) != users {
		t.Fatalf("%d joined, %d entries, want %d", r.Joined, len(list), users)
	}
	var sorted []int
	for i, n := range given {
		if n != given[i%users] {
			t.Errorf("user %d has the numbers %d and %d", i%users, given[i%users], n)
		}
		found, e, err := l.Find(t.Context(), "a", fmt.Sprint(i%users))
		must(t, err)
		if found != n || list[n] != e {
			t.Errorf("user %d was given %d and has %d; entry %x, in the list %x", i%users, n, found, e, list[n])
		}
		if i < users {
			sorted = append(sorted, n)
		}
	}
	slices.Sort(sorted)
	for i, n := range sorted {
		if i != n {
			t.Fatalf("numbers given are %v", sorted)
		}
	}
}

// Of those who advance a room from the same revision one does, whoever joins meanwhile.
func advancesAtOnce(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	const rounds, leaders = 10, 4
	for round := range rounds {
		var won [leaders]bool
		var all sync.WaitGroup
		for i := range leaders {
			all.Go(func() {
				r, err := l.Advance(t.Context(), "a", int64(round), waiting.Progress{Head: 10*round + i})
				if won[i] = err == nil; !won[i] {
					is(t, "advance", err, waiting.ErrMoved)
				} else if r.Progress.Head != 10*round+i {
					t.Errorf("advanced to %d, answered %d", 10*round+i, r.Progress.Head)
				}
			})
			all.Go(func() {
				if _, _, err := l.Join(t.Context(), "a", fmt.Sprint(round, i), entry(fmt.Sprint(round, i)), -1, 1000); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		r, err := l.Room(t.Context(), "a")
		must(t, err)
		winner := slices.Index(won[:], true)
		if winner < 0 || slices.Contains(won[winner+1:], true) {
			t.Fatalf("round %d: who advanced is %v", round, won)
		}
		if r.Revision != int64(round+1) || r.Progress.Head != 10*round+winner || r.Joined != leaders*(round+1) {
			t.Errorf("round %d: revision %d, head %d, joined %d", round, r.Revision, r.Progress.Head, r.Joined)
		}
	}
}

// Who gives up the same number several times at once gets one other.
func rejoinsAtOnce(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	join(t, l, "a", "ann", "first", -1, 0, "first")
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if n, _, err := l.Join(t.Context(), "a", "ann", entry(fmt.Sprint(i)), 0, 100); err != nil || n != 1 {
				t.Errorf("number %d, %v", n, err)
			}
		})
	}
	all.Wait()
	r, err := l.Room(t.Context(), "a")
	must(t, err)
	equal(t, "joined", r.Joined, 2)
}

// A caller who has given up before is told so, and has changed nothing.
func givenUp(t *testing.T, l waiting.Line) {
	opened(t, l, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Join(ctx, "a", "ann", entry("x"), -1, 10); err == nil {
		t.Error("joined for somebody who had given up")
	}
	if _, err := l.Advance(ctx, "a", 0, busy(2)); err == nil {
		t.Error("advanced for somebody who had given up")
	}
	equal(t, "the room", opened(t, l, "a"), waiting.Room{Activity: "a", Seed: waiting.Seed{1, 255, 0, 7}, OpenedAt: 12})
}
