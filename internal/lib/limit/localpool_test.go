package limit_test

import (
	"testing"
	"time"

	"sluice/internal/lib/limit"
	"sluice/internal/lib/limit/pooltest"
)

func TestLocalPool(t *testing.T) {
	pooltest.Run(t, func(t *testing.T, r limit.Rate, validity time.Duration) pooltest.Body {
		at := time.Unix(1_000_000, 0)
		p, err := limit.NewLocalPool(r, validity, func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		return pooltest.Body{Pool: p, Pass: func(_ *testing.T, d time.Duration) { at = at.Add(d) }}
	})
}

func TestLocalPoolEdit(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	r := limit.Rate{Algorithm: limit.TokenBucket, Limit: 10, Per: time.Second, Burst: 100}
	p, err := limit.NewLocalPool(r, time.Minute, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	if l, err := p.Grant(t.Context(), "a", 60); err != nil || l.Permits != 60 {
		t.Fatal(l, err)
	}
	r.Burst = 80
	if err := p.Edit(r); err != nil {
		t.Fatal(err)
	}
	if l, err := p.Grant(t.Context(), "b", 100); err != nil || l.Permits != 20 {
		t.Errorf("60 used of 80: %+v, %v", l, err)
	}
	r.Algorithm = limit.FixedWindow
	if err := p.Edit(r); err == nil {
		t.Error("a pool became a window")
	}
}
