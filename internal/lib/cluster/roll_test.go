package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestRoll(t *testing.T) {
	var r Roll
	now := time.Unix(1_790_000_000, 0)
	f := func(wait time.Duration, there []string, want ...string) {
		t.Helper()
		now = now.Add(wait)
		var list []Member
		for _, name := range there {
			list = append(list, Member{Name: name})
		}
		r.Note(list, now)
		all, asOf := r.Members()
		var got []string
		for _, s := range all {
			got = append(got, fmt.Sprint(s.Name, " ", s.Gone, " ", now.Sub(s.LastSeen)))
		}
		if !slices.Equal(got, want) || !asOf.Equal(now) {
			t.Errorf("%q of %s, want %q", got, asOf, want)
		}
	}
	f(0, nil)
	f(0, []string{"b", "a"}, "a false 0s", "b false 0s")
	f(time.Second, []string{"b"}, "a true 1s", "b false 0s")
	f(time.Minute, []string{"b"}, "a true 1m1s", "b false 0s")
	f(time.Minute, []string{"b", "a"}, "a false 0s", "b false 0s") // back
	f(time.Minute, nil, "a true 1m0s", "b true 1m0s")
	f(time.Hour, []string{"c"}, "c false 0s")

	var many []string
	for i := range maxGone + 10 {
		many = append(many, fmt.Sprintf("m%03d", i))
	}
	for i := range many {
		now = now.Add(time.Millisecond)
		r.Note([]Member{{Name: many[i]}}, now)
	}
	now = now.Add(time.Millisecond)
	r.Note(nil, now)
	if all, _ := r.Members(); len(all) != maxGone || all[0].Name != "m010" {
		t.Errorf("%d are remembered, the first is %s", len(all), all[0].Name)
	}
}
