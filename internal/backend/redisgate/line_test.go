package redisgate_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"sluice/internal/gate/waiting"
	"sluice/internal/gate/waiting/linetest"
	"sluice/test/servers"
)

func TestLine(t *testing.T) {
	s := servers.Redis(t)
	linetest.Run(t, func(t *testing.T) waiting.Line { return serve(t, s).Line })
}

func TestPresence(t *testing.T) {
	s := servers.Redis(t)
	linetest.PresenceRun(t, func(t *testing.T) waiting.Presence { return serve(t, s).Presence })
}

func open(t testing.TB, l waiting.Line, activity string) {
	t.Helper()
	if _, err := l.Open(t.Context(), activity, waiting.Seed{1}, 1); err != nil {
		t.Fatal(err)
	}
}

// entry is the id of the i-th who joins.
func entry(i int) waiting.EntryID {
	return waiting.EntryID{byte(i >> 16), byte(i >> 8), byte(i), 15: 1}
}

const crowd = 64

// together calls do for 0..n-1, from many goroutines.
func together(n int, do func(i int)) {
	var all sync.WaitGroup
	for from := range crowd {
		all.Go(func() {
			for i := from; i < n; i += crowd {
				do(i)
			}
		})
	}
	all.Wait()
}

// repeated says how many of the numbers somebody else has already.
func repeated(numbers []int) (n int) {
	sorted := slices.Sorted(slices.Values(numbers))
	return len(sorted) - len(slices.Compact(sorted))
}

// Many who join at once, by two processes, get distinct consecutive numbers; by
// reading and then writing, without the script, they do not.
func TestJoinsAtOnce(t *testing.T) {
	server := servers.Redis(t)
	gates := []waiting.Line{serve(t, server).Line, connect(t, server, optionsOfTest).Line}
	open(t, gates[0], "crowd")
	const n = 4000
	given := make([]int, n)
	together(n, func(i int) {
		var err error
		if given[i], _, err = gates[i%2].Join(t.Context(), "crowd", fmt.Sprint("u", i), entry(i), -1, n); err != nil {
			t.Error(err)
		}
	})
	if repeated(given) > 0 || slices.Max(given) != n-1 {
		t.Errorf("%d of %d numbers were given twice, the last is %d", repeated(given), n, slices.Max(given))
	}
	entries, err := gates[1].Entries(t.Context(), "crowd", 0, 2*n)
	if err != nil || len(entries) != n {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, number := range given {
		if entries[number] != entry(i) {
			t.Fatalf("the entry of number %d is %x, not that of user %d", number, entries[number], i)
		}
	}

	do(t, server, "SET", "next", "0") // the guard off
	naive := make([]int, 40*crowd)
	together(len(naive), func(i int) {
		text, err1 := servers.Do(server, "GET", "next")
		next, err2 := strconv.Atoi(text.(string))
		_, err3 := servers.Do(server, "SET", "next", strconv.Itoa(next+1))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Error(err)
		}
		naive[i] = next
	})
	if repeated(naive) == 0 {
		t.Error("reading and then writing gave no number twice: this test shows nothing")
	}
	t.Logf("without the script %d of %d numbers were given twice", repeated(naive), len(naive))
}

// Users whose places share a field of the hash of users are told apart, also
// after one has got another number.
func TestManyUsersInAField(t *testing.T) {
	server := servers.Redis(t)
	l := serve(t, server).Line
	open(t, l, "full")
	const n = 60_000 // two or three in most of the fields that are in use
	user := func(i int) string { return fmt.Sprint("user ", i) }
	together(n, func(i int) {
		if _, _, err := l.Join(t.Context(), "full", user(i), entry(i), -1, n+n/10); err != nil {
			t.Error(err)
		}
	})
	if fields, _ := do(t, server, "HLEN", "sluice:room:{full}u").(int64); fields > n*9/10 {
		t.Fatalf("%d fields: few are shared, so this test shows little", fields)
	}
	moved := make([]int, n)
	together(n, func(i int) {
		was, e, err := l.Find(t.Context(), "full", user(i))
		if err != nil || e != entry(i) {
			t.Errorf("user %d: number %d, entry %x, %v", i, was, e, err)
		}
		if moved[i] = was; i%10 > 0 {
			return
		}
		if moved[i], _, err = l.Join(t.Context(), "full", user(i), entry(i), was, n+n/10); err != nil || moved[i] < n {
			t.Errorf("user %d instead of %d: %d, %v", i, was, moved[i], err)
		}
	})
	together(n, func(i int) {
		number, e, err := l.Find(t.Context(), "full", user(i))
		if err != nil || number != moved[i] || e != entry(i) {
			t.Errorf("user %d has number %d, entry %x, %v; want %d", i, number, e, err, moved[i])
		}
	})
	if _, _, err := l.Find(t.Context(), "full", "nobody"); !errors.Is(err, waiting.ErrNotWaiting) || errors.Is(err, waiting.ErrNoRoom) {
		t.Errorf("who never joined: %v", err)
	}
}

// A room gives out no more than MaxJoined, whatever the caller says.
func TestMostIsBounded(t *testing.T) {
	server := servers.Redis(t)
	l := serve(t, server).Line
	open(t, l, "bounded")
	const pages = 20 // each well within the time of a command
	for range pages {
		do(t, server, "EVAL", `local page = {}
			for i = 1, 1000 do page[i] = '0123456789abcdef' end
			for i = 1, ARGV[1], 1000 do redis.call('RPUSH', KEYS[1], unpack(page)) end`,
			"1", "sluice:room:{bounded}e", strconv.Itoa(waiting.MaxJoined/pages))
	}
	if n, _, err := l.Join(t.Context(), "bounded", "late", entry(1), -1, waiting.MaxJoined*2); !errors.Is(err, waiting.ErrFull) {
		t.Errorf("number %d, %v", n, err)
	}
	if all, err := l.Entries(t.Context(), "bounded", 5, 1<<62); err != nil || len(all) != waiting.MaxJoined-5 {
		t.Errorf("%d entries, %v", len(all), err)
	}
}

// What Presence keeps is bounded: the windows of a room that lives on are
// forgotten, all of it ends by itself, and so do the reports of the silent.
func TestPresenceIsBounded(t *testing.T) {
	server := servers.Redis(t)
	p := serve(t, server).Presence
	for w := range int64(50) {
		if err := p.See(t.Context(), "long", 1000+w, []int{waiting.MaxJoined - 1, -1, waiting.MaxJoined}); err != nil {
			t.Fatal(err)
		}
	}
	there, err := p.Seen(t.Context(), "long", 1049, []int{-1, waiting.MaxJoined - 1, waiting.MaxJoined})
	if err != nil || !slices.Equal(there, []bool{false, true, false}) {
		t.Errorf("%v, %v", there, err)
	}
	for _, process := range []string{"silent", "alive"} {
		if err := p.Report(t.Context(), "long", process, waiting.Report{Used: 1}); err != nil {
			t.Fatal(err)
		}
	}
	do(t, server, "ZADD", "sluice:room:{long}t", "1000", "silent") // as if long ago
	if err := p.Report(t.Context(), "long", "alive", waiting.Report{Used: 2}); err != nil {
		t.Fatal(err)
	}
	got, err := p.Reports(t.Context(), "long")
	if err != nil || len(got) != 1 || got["alive"].Used != 2 {
		t.Errorf("%v, %v", got, err)
	}
	keys, _ := do(t, server, "KEYS", "*").([]any)
	if len(keys) != 5 { // three windows, the reports and their times
		t.Errorf("%d keys: %v", len(keys), keys)
	}
	for _, k := range keys {
		if left, _ := do(t, server, "PTTL", k.(string)).(int64); left < 1000 {
			t.Errorf("%s ends in %d ms", k, left)
		}
	}
}
