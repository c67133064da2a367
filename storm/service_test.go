package storm

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestService(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	s := newService(3)
	s.failed(0, at(5)) // nobody is said to be away
	s.broken("redis 2", at(10), at(0))
	s.failed(1, at(12))
	s.served(2, at(11), at(14)) // sent before the failure
	s.served(2, at(15), at(20)) // nobody served from 12 to 20
	s.failed(1, at(30))
	s.served(0, at(31), at(33))
	s.failed(1, at(50))
	s.mended(at(60))
	s.served(1, at(61), at(112)) // nobody of bucket 1 from 12 to 112
	s.failed(0, at(190))         // sent at 190, but bucket 0 was served until 200
	s.served(0, at(150), at(200))
	s.failed(0, at(195))
	s.served(0, at(205), at(230))
	s.broken("worker 1", at(300), at(0))
	s.broken("worker 2", at(301), at(0))
	s.failed(2, at(290)) // sent before, and failed by it
	faults := s.stop(at(400))
	f := func(i int, want Fault) {
		t.Helper()
		got := *faults[i]
		got.at, got.back = time.Time{}, false
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if len(faults) != 2 {
		t.Fatalf("%d faults", len(faults))
	}
	f(0, Fault{Part: "redis 2", At: 0.01, Away: 0.05, Failed: 5, AllMS: 62, OneMS: 100, Bucket: 1})
	f(1, Fault{Part: "worker 1, worker 2", At: 0.3, Failed: 1, AllMS: 100, OneMS: 100, Bucket: 2, Lasting: true})
	if text := faults[1].String(); !strings.Contains(text, "nobody of bucket 2 for 100 ms, to the end") {
		t.Error(text)
	}
}

func TestTroubles(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(100, 0).Add(time.Duration(s * float64(time.Second))) }
	o := newOracle(1, at(0))
	f := func(shown, sent float64, want bool) {
		t.Helper()
		if got := o.heardOf(at(shown), at(sent)); got != want {
			t.Errorf("shown at %g, asked at %g: %v", shown, sent, got)
		}
	}
	f(1, 1.1, true)
	o.troubles.begin(at(2))
	o.troubles.begin(at(3)) // another part
	f(1, 2.5, true)
	f(2.5, 9, false)
	o.troubles.end(at(4))
	f(2.5, 3.9, false)
	f(2.5, 4.1, true)
	o.lag = time.Second
	f(2.5, 4.1, false)
	f(2.5, 5.1, true)
	f(1, 1.9, false)
	if o.troubles.clearSince(at(3)) || !o.troubles.clearSince(at(4)) || o.troubles.active() {
		t.Error("clear at the wrong time")
	}
}

// What a front says when there is nobody behind it decides nothing; what a
// server says in its own words is judged.
func TestJudgeFronts(t *testing.T) {
	f := func(status int, body string, want verdict) {
		t.Helper()
		if got, _ := judge(status, []byte(body)); got != want {
			t.Errorf("%d %q: %d, want %d", status, body, got, want)
		}
	}
	f(502, "<html><head><title>502 Bad Gateway</title></head>", unknown)
	f(504, "<html>", unknown)
	f(503, "", unknown)
	f(503, `{"code":"not_ready"}`, unavailable)
	f(503, `{"code":"overloaded"}`, refused)
	f(503, `{"code":"unknown"}`, unknown)
	f(503, `{"code":"no such code"}`, broken)
	f(502, `{"status":502}`, broken)
	f(500, "<html>", broken)
	f(404, "<html>", broken)
}

// Parts are away in turn: one bucket is not served, then nothing answers but a
// front that has nobody behind it.
func stormWhilePartsAreAway(t *testing.T) {
	t.Helper()
	s, o := openFleet(t, honest)
	o.Duration = time.Minute
	var away atomic.Int32 // 1: bucket 1, 2: everything
	s.guard = func(ctx *fasthttp.RequestCtx, user string) bool {
		switch {
		case away.Load() == 1 && bucketOf(user, 3) == 1:
			s.refuse(ctx, 503, "not_ready")
		case away.Load() == 2:
			ctx.Error("<html>502 Bad Gateway</html>", 502)
		default:
			return false
		}
		return true
	}
	const spell = 300 * time.Millisecond
	o.Supervisor = func(ctx context.Context, w *Watch) error {
		for part := range int32(2) {
			<-time.After(spell)
			w.Broken(fmt.Sprintf("part %d", part+1), time.Now())
			away.Store(part + 1)
			<-time.After(spell)
			away.Store(0)
			w.Up()
		}
		<-time.After(spell)
		return nil
	}
	report, err := rehearse(t.Context(), o, hasty, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Violations) != 0 || report.Sold != o.Stock {
		t.Errorf("sold %d of %d; %s", report.Sold, o.Stock, strings.Join(report.Violations, "\n"))
	}
	if len(report.Faults) != 2 {
		t.Fatalf("%d faults", len(report.Faults))
	}
	one, all := report.Faults[0], report.Faults[1]
	ms := float64(spell.Milliseconds())
	if one.Bucket != 1 || one.OneMS < ms/2 || one.AllMS > one.OneMS || one.Failed == 0 {
		t.Errorf("one bucket: %s", one)
	}
	if all.AllMS < ms/2 || all.OneMS < all.AllMS/2 || all.Failed == 0 {
		t.Errorf("everything: %s", all)
	}
}
