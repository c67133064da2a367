package lease_test

import (
	"sync"
	"testing"
	"time"

	"sluice/internal/lib/lease"
	"sluice/internal/lib/lease/leasetest"
)

func TestLocal(t *testing.T) {
	leasetest.Run(t, func(t *testing.T) leasetest.Body {
		var mu sync.Mutex
		now := time.Unix(1_790_000_000, 0)
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
		return leasetest.Body{Leases: lease.NewLocal(clock), Pass: func(_ *testing.T, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
		}}
	})
}
