package redisgate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/backend/redisgate"
	"sluice/internal/lib/limit"
	"sluice/internal/lib/limit/pooltest"
	"sluice/test/servers"
)

func bucketOf(limit_ int64, per time.Duration, burst int64) limit.Rate {
	return limit.Rate{Algorithm: limit.TokenBucket, Limit: limit_, Per: per, Burst: burst}
}

func pool(t testing.TB, s *redisgate.Shared, name string, version int64, r limit.Rate, validity time.Duration) *redisgate.Pool {
	t.Helper()
	p, err := s.Pool(name, version, r, validity)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func grant(t testing.TB, p *redisgate.Pool, id string, want, permits int64) limit.Lease {
	t.Helper()
	l, err := p.Grant(t.Context(), id, want)
	if err != nil || l.Permits != permits {
		t.Fatalf("%d for %s: %+v, %v; want %d", want, id, l, err, permits)
	}
	return l
}

func TestPool(t *testing.T) {
	server := servers.Redis(t)
	pooltest.Run(t, func(t *testing.T, r limit.Rate, validity time.Duration) pooltest.Body {
		return pooltest.Body{Pool: pool(t, serve(t, server), t.Name(), 1, r, validity), Pass: func(t *testing.T, d time.Duration) { pass(t, server, d) }}
	})
}

func TestPoolBounds(t *testing.T) {
	s := serve(t, servers.Redis(t))
	f := func(name string, version int64, r limit.Rate, validity time.Duration, want error) {
		t.Helper()
		if _, err := s.Pool(name, version, r, validity); !errors.Is(err, want) {
			t.Errorf("%q, version %d, %s, %s: %v", name, version, r, validity, err)
		}
	}
	ok := bucketOf(10, time.Second, 0)
	f("{p}: ü", 0, ok, time.Millisecond, nil)
	f("", 0, ok, time.Second, limit.ErrPool)
	f(strings.Repeat("p", redisgate.MaxPoolName+1), 0, ok, time.Second, limit.ErrPool)
	f("p", -1, ok, time.Second, limit.ErrPool)
	f("p", 1<<53, ok, time.Second, limit.ErrPool)
	f("p", 0, ok, time.Microsecond, limit.ErrPool)
	f("p", 0, ok, 2*time.Hour, limit.ErrPool)
	f("p", 0, bucketOf(0, time.Second, 0), time.Second, limit.ErrRate)
	f("p", 0, limit.Rate{Algorithm: limit.FixedWindow, Limit: 1, Per: time.Second}, time.Second, limit.ErrRate)
}

// Two processes with one name draw from one bucket; other names are other buckets.
func TestPoolIsShared(t *testing.T) {
	server := servers.Redis(t)
	a, b := serve(t, server), connect(t, server, redisgate.Options{})
	r := bucketOf(1, time.Hour, 100)
	one, two, other := pool(t, a, "sale", 1, r, time.Minute), pool(t, b, "sale", 1, r, time.Minute), pool(t, b, "sales", 1, r, time.Minute)
	grant(t, one, "a", 60, 60)
	grant(t, two, "a", 60, 60) // the same id is the same lease, whoever asks
	grant(t, two, "b", 60, 40)
	grant(t, other, "a", 100, 100)
}

// Every key of a pool ends by itself, and no later than it is of use.
func TestPoolKeysExpire(t *testing.T) {
	server := servers.Redis(t)
	p := pool(t, serve(t, server), "brief", 1, bucketOf(100, time.Second, 100), 2*time.Second)
	for i := range 30 {
		grant(t, p, fmt.Sprint(i), 3, 3)
	}
	if err := p.Return(t.Context(), "7", 1); err != nil {
		t.Fatal(err)
	}
	keys, _ := do(t, server, "KEYS", "*").([]any)
	if len(keys) != 31 {
		t.Errorf("%d keys: %v", len(keys), keys)
	}
	for _, k := range keys {
		if left, _ := do(t, server, "PTTL", k.(string)).(int64); left < 1 || left > 2002 {
			t.Errorf("%s ends in %d ms", k, left)
		}
	}
}

// All obey the newest rate that the pool has heard of, and what is owed stands.
func TestPoolEdits(t *testing.T) {
	s := serve(t, servers.Redis(t))
	old := pool(t, s, "edited", 1, bucketOf(10, time.Hour, 100), time.Minute)
	grant(t, old, "a", 60, 60)
	cut := pool(t, s, "edited", 2, bucketOf(10, time.Hour, 80), time.Minute)
	grant(t, cut, "b", 10, 10)
	grant(t, old, "c", 50, 10) // 80 is the capacity for who does not know it as well
	raised := pool(t, s, "edited", 3, bucketOf(20, time.Hour, 200), time.Minute)
	grant(t, raised, "d", 1000, 120)
	low := pool(t, s, "edited", 4, bucketOf(10, time.Hour, 5), time.Minute)
	if l := grant(t, low, "e", 1, 0); l.Again <= 0 || l.Again > 6*time.Minute {
		t.Errorf("after a cut, ask again in %s", l.Again)
	}
	if l := grant(t, raised, "f", 1, 0); l.Again <= 3*time.Minute {
		t.Errorf("an edit that granted nothing was forgotten: again in %s", l.Again)
	}
}

// older makes a bucket and a lease older by some microseconds, as if Redis'
// clock had gone on; by less than none, as if it had gone back.
func older(t testing.TB, server *servers.Server, name, id string, d time.Duration) {
	t.Helper()
	do(t, server, "EVAL", `local bucket, lease = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
		if bucket then
			local v, l, p, c, owed, part, at = cmsgpack.unpack(bucket)
			redis.call('SET', KEYS[1], cmsgpack.pack(v, l, p, c, owed, part, at - ARGV[1]), 'KEEPTTL')
		end
		if lease then
			local permits, till = cmsgpack.unpack(lease)
			redis.call('SET', KEYS[2], cmsgpack.pack(permits, till - ARGV[1]), 'KEEPTTL')
		end`, "2", "sluice:pool:{"+name+"}b", "sluice:pool:{"+name+"}l:"+id, fmt.Sprint(d.Microseconds()))
}

// A clock that steps back stops nothing, and makes no lease longer; one that
// steps forward ends leases.
func TestPoolClockSteps(t *testing.T) {
	server := servers.Redis(t)
	p := pool(t, serve(t, server), "steps", 1, bucketOf(3600, time.Hour, 100), time.Minute)
	grant(t, p, "a", 60, 60)
	older(t, server, "steps", "a", -time.Hour)
	if l := grant(t, p, "a", 60, 60); l.ValidFor > time.Minute {
		t.Errorf("valid for %s", l.ValidFor)
	}
	grant(t, p, "b", 100, 40)
	older(t, server, "steps", "b", 30*time.Second) // from the time that it is now
	if l := grant(t, p, "b", 100, 40); l.ValidFor > 30*time.Second {
		t.Errorf("after half of its time valid for %s", l.ValidFor)
	}
	grant(t, p, "c", 100, 30)
	older(t, server, "steps", "c", 70*time.Second)
	if err := p.Return(t.Context(), "c", 30); err != nil {
		t.Fatal(err)
	}
	grant(t, p, "c", 100, 70) // what it was is over, and spent
}

// However often a bucket is asked, it pays what time is worth: a part of a
// permit is neither lost nor won.
func TestPoolKeepsParts(t *testing.T) {
	server := servers.Redis(t)
	p := pool(t, serve(t, server), "parts", 1, bucketOf(7, time.Minute, 50), time.Hour)
	grant(t, p, "all", 50, 50)
	begun, got := time.Now(), int64(0)
	const steps = 2000
	for i := range steps { // of 30 ms
		older(t, server, "parts", "", 30*time.Millisecond)
		l, err := p.Grant(t.Context(), fmt.Sprint(i), 5)
		if err != nil {
			t.Fatal(err)
		}
		got += l.Permits
	}
	besides := int64(time.Since(begun).Minutes()*7) + 1
	if got < 7 || got > 7+besides {
		t.Errorf("a minute was worth %d permits, want 7 and at most %d more", got, besides)
	}
}

// The arithmetic is that of a LocalPool, for rates up to the bounds and over any
// time: what is granted, and when to ask again. Time passes by making a bucket
// older; besides, a little of it passes at Redis alone.
func TestPoolAgreesWithLocal(t *testing.T) {
	server := servers.Redis(t)
	s := serve(t, server)
	number, partial := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		number++
		r := bucketOf(rapid.OneOf(rapid.Int64Range(1, 50), rapid.Int64Range(1, limit.MaxLimit)).Draw(rt, "limit"),
			time.Duration(rapid.Int64Range(1000, int64(limit.MaxPer/time.Microsecond)).Draw(rt, "per"))*time.Microsecond,
			rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(0, limit.MaxLimit)).Draw(rt, "burst"))
		if r.Validate() != nil {
			rt.Skip("would take too long to fill")
		}
		name, begun, at := fmt.Sprint("agree", number), time.Now(), time.Unix(1_700_000_000, 0)
		local, err1 := limit.NewLocalPool(r, time.Hour, func() time.Time { return at })
		p, err2 := s.Pool(name, 1, r, time.Hour)
		if err := errors.Join(err1, err2); err != nil {
			rt.Fatal(err)
		}
		ahead, rounded := int64(0), int64(0)
		perSecond := float64(r.Limit) / r.Per.Seconds()
		for i := range rapid.IntRange(1, 6).Draw(rt, "grants") {
			d := time.Microsecond * time.Duration(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1, 5_000_000), rapid.Int64Range(1, 60*24*3_600_000_000)).Draw(rt, "µs"))
			at = at.Add(d)
			older(t, server, name, "", d)
			id, want := fmt.Sprint(i), rapid.OneOf(rapid.Int64Range(1, 2000), rapid.Int64Range(1, limit.MaxLimit)).Draw(rt, "want")
			got, err1 := p.Grant(t.Context(), id, want)
			expect, err2 := local.Grant(t.Context(), id, want)
			ahead += got.Permits - expect.Permits
			slack := int64(perSecond*time.Since(begun).Seconds()) + 1 + rounded
			if err1 != nil || err2 != nil || ahead < 0 || ahead > slack {
				rt.Fatalf("%s, %d wanted: %+v, %v; local %+v, %v; in all %d more, at most %d", r, want, got, err1, expect, err2, ahead, slack)
			}
			late := time.Duration(float64(slack)/perSecond*float64(time.Second)) + 2*time.Microsecond
			if short := got.Permits < want && expect.Permits < want; short && (got.Again-expect.Again).Abs() > late {
				rt.Fatalf("%s, %d wanted: again in %s; local %s", r, want, got.Again, expect.Again)
			}
			if 0 < got.Permits && got.Permits < want {
				partial++
			}
			if got.Permits > 0 && rapid.Bool().Draw(rt, "return") {
				rounded++ // a LocalPool rounds what is owed up at each return
				n := rapid.Int64Range(0, min(got.Permits, expect.Permits)).Draw(rt, "unspent")
				if err := errors.Join(p.Return(t.Context(), id, n), local.Return(t.Context(), id, n)); err != nil {
					rt.Fatal(err)
				}
			}
		}
	})
	if partial == 0 {
		t.Error("no bucket was ever short: this test shows nothing")
	}
}
