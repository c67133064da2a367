package storm

import (
	"reflect"
	"testing"
	"time"
)

func TestThirdOf(t *testing.T) {
	before := counts{attempts: 10, accepted: 4}
	before.refused[codeSoldOut] = 6
	now := counts{attempts: 25, accepted: 5}
	now.refused[codeSoldOut], now.refused[codeAllHeld] = 6, 14
	got := thirdOf("pulled", before, now, 2500*time.Millisecond)
	want := Third{When: "pulled", Seconds: 2.5, Attempts: 15, Accepted: 1, Refused: map[string]uint64{"all_held": 14}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if line := got.String(); line != "2.5 s: 15 attempts, 1 accepted, refused all_held 14" {
		t.Error(line)
	}
}
