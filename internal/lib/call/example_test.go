package call_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/lib/call"
)

// A bank that is called to charge and to look up. Its refusals are answers.
func ExampleDependency() {
	declined := errors.New("card declined")
	bank, err := call.NewDependency(call.Options{
		Name:     "bank",
		Timeout:  2 * time.Second,
		Breaker:  call.BreakerOptions{Slow: time.Second},
		Bulkhead: call.BulkheadOptions{InFlight: 32, Waiting: 32, MaxWait: 100 * time.Millisecond},
		Judge: func(err error) call.Verdict {
			if errors.Is(err, declined) {
				return call.Answered
			}
			return call.AllFail(err)
		},
	})
	if err != nil {
		panic(err)
	}
	charge := func(context.Context) error { return declined }
	fmt.Println(bank.Do(context.Background(), call.Once, charge), bank.Breaker.Status().Failed)

	bank.Breaker.Hold(call.Open) // an operator knows that it is being repaired
	err = bank.Do(context.Background(), call.Once, charge)
	fmt.Println(err, call.Refused(err))
	// Output:
	// card declined 0
	// bank: circuit is open true
}

// A server's limit with two classes of work.
func ExampleAdaptive() {
	const paying, browsing = 0, 1
	limit, err := call.NewAdaptive(call.AdaptiveOptions{Shares: []float64{1, 0.5}, Initial: 4})
	if err != nil {
		panic(err)
	}
	for _, class := range []call.Class{browsing, browsing, browsing, paying} {
		permit, err := limit.Acquire(class, time.Now())
		if err != nil {
			fmt.Println(class, err)
			continue
		}
		defer func() { permit.Release(time.Now(), call.Served) }()
	}
	fmt.Println(limit.Status().InFlight)
	// Output:
	// 1 concurrency limit reached
	// 3
}
