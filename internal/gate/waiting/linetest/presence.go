package linetest

import (
	"fmt"
	"sync"
	"testing"

	"sluice/internal/gate/waiting"
)

// PresenceRun checks a Presence. open answers one that is empty.
func PresenceRun(t *testing.T, open func(t *testing.T) waiting.Presence) {
	for name, f := range map[string]func(*testing.T, waiting.Presence){
		"seen":         seen,
		"windows":      windows,
		"many":         many,
		"seen at once": seenAtOnce,
		"reports":      reports,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func see(t *testing.T, p waiting.Presence, activity string, window int64, numbers ...int) {
	t.Helper()
	must(t, p.See(t.Context(), activity, window, numbers))
}

func saw(t *testing.T, p waiting.Presence, activity string, window int64, numbers []int, want ...bool) {
	t.Helper()
	got, err := p.Seen(t.Context(), activity, window, numbers)
	must(t, err)
	equal(t, fmt.Sprintf("seen of %s in window %d or before", activity, window), got, want)
}

// now is a window as they are in life.
const now int64 = 56_666_666

func seen(t *testing.T, p waiting.Presence) {
	saw(t, p, "a", now, []int{0, 1}, false, false)
	see(t, p, "a", now, 3, 0, 3, waiting.MaxJoined-1)
	see(t, p, "a", now)
	see(t, p, "b", now, 1)
	saw(t, p, "a", now, []int{0, 1, 2, 3, 4, waiting.MaxJoined - 1, 0}, true, false, false, true, false, true, true)
	saw(t, p, "b", now, []int{1, 0}, true, false)
	saw(t, p, "c", now, []int{1}, false)
}

// Somebody is there in the window in which he was seen and in the next.
func windows(t *testing.T, p waiting.Presence) {
	see(t, p, "a", now, 1, 2)
	see(t, p, "a", now+1, 2, 3)
	see(t, p, "a", now, 4) // by a process whose clock is behind
	saw(t, p, "a", now+1, []int{1, 2, 3, 4, 5}, true, true, true, true, false)
	saw(t, p, "a", now+2, []int{1, 2, 3, 4, 5}, false, true, true, false, false)
	see(t, p, "a", now+2, 5)
	saw(t, p, "a", now+2, []int{1, 2, 3, 4, 5}, false, true, true, false, true)
	saw(t, p, "a", now+3, []int{1, 2, 3, 4, 5}, false, false, false, false, true)
	see(t, p, "a", now+9, 1)
	saw(t, p, "a", now+9, []int{1, 2, 3, 4, 5}, true, false, false, false, false)
	saw(t, p, "a", now+10, []int{1}, true)
	saw(t, p, "a", now+11, []int{1}, false)
}

func many(t *testing.T, p waiting.Presence) {
	var third, all []int
	for n := range 10_000 {
		all = append(all, 199*n)
		if n%3 == 0 {
			third = append(third, 199*n)
		}
	}
	see(t, p, "a", now, third...)
	got, err := p.Seen(t.Context(), "a", now+1, all)
	must(t, err)
	for n := range all {
		if got[n] != (n%3 == 0) {
			t.Fatalf("number %d: seen %v", all[n], got[n])
		}
	}
}

func seenAtOnce(t *testing.T, p waiting.Presence) {
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 20 {
				if err := p.See(t.Context(), "a", now+int64(n%2), []int{20*i + n}); err != nil {
					t.Error(err)
				}
				if _, err := p.Seen(t.Context(), "a", now+1, []int{n}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var numbers []int
	for n := range 160 {
		numbers = append(numbers, n)
	}
	got, err := p.Seen(t.Context(), "a", now+1, numbers)
	must(t, err)
	for n, there := range got {
		if !there {
			t.Errorf("number %d was not seen", n)
		}
	}
}

func reports(t *testing.T, p waiting.Presence) {
	found := func(activity string, want map[string]waiting.Report) {
		t.Helper()
		got, err := p.Reports(t.Context(), activity)
		must(t, err)
		if len(want) > 0 || len(got) > 0 {
			equal(t, "reports of "+activity, got, want)
		}
	}
	found("a", nil)
	first := waiting.Report{At: 1_700_000_000_000, Used: 7, Rate: 0.25, Served: []waiting.Used{{At: 1_699_999_999_999, N: 3}, {At: 5, N: 4}}}
	second := waiting.Report{At: 2, Rate: 50_000}
	must(t, p.Report(t.Context(), "a", "gate:1", first))
	must(t, p.Report(t.Context(), "a", "gate 2", second))
	must(t, p.Report(t.Context(), "b", "gate:1", second))
	found("a", map[string]waiting.Report{"gate:1": first, "gate 2": second})
	found("b", map[string]waiting.Report{"gate:1": second})
	must(t, p.Report(t.Context(), "a", "gate:1", second))
	found("a", map[string]waiting.Report{"gate:1": second, "gate 2": second})
	see(t, p, "a", now, 1)
	found("a", map[string]waiting.Report{"gate:1": second, "gate 2": second})
}
