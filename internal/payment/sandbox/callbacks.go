package sandbox

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"sluice/internal/payment"
)

// job is one thing due: a callback by its number, or a late capture.
type job struct {
	at      int64 // Unix ms
	payment string
	call    int
}

const lateCapture = -1

// jobs is a heap, soonest first.
type jobs []job

func (h jobs) Len() int           { return len(h) }
func (h jobs) Less(i, j int) bool { return h[i].at < h[j].at }
func (h jobs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *jobs) Push(x any)        { *h = append(*h, x.(job)) }
func (h *jobs) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// Step takes the late captures that are due and delivers up to 64 callbacks,
// side by side and each within 5 s. A callback that fails waits for its next
// try. What Step did before a crash may be repeated: callbacks arrive at least once.
func (s *Server) Step(ctx context.Context) (worked bool, err error) {
	s.stepping.Lock()
	defer s.stepping.Unlock()
	calls, late, err := s.takeDue()
	if err != nil || len(calls) == 0 {
		return late, err
	}
	failures := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, d := range calls {
		wg.Go(func() { failures[i] = s.deliver(ctx, d) })
	}
	wg.Wait()
	return true, s.finish(ctx, calls, failures)
}

// delivery is a callback under way.
type delivery struct {
	job  job
	url  string
	body payment.Status
}

// takeDue removes a batch of due jobs, doing the late captures at once.
func (s *Server) takeDue() (calls []delivery, late bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	for len(calls) < deliveries && len(s.due) > 0 && s.due[0].at <= now {
		j := heap.Pop(&s.due).(job)
		r := s.payments[j.payment]
		if j.call == lateCapture {
			late = true
			next := r.clone()
			next.LateAt = 0
			next.callBack(next.take(next.Amount), now)
			if err := s.save(next); err != nil {
				heap.Push(&s.due, j)
				s.requeue(calls)
				return nil, late, err
			}
			s.schedule(next, r)
			continue
		}
		i := slices.IndexFunc(r.Calls, func(c call) bool { return c.Number == j.call })
		calls = append(calls, delivery{job: j, url: r.CallbackURL, body: r.statusOf(r.Calls[i].Capture)})
	}
	return calls, late, nil
}

func (s *Server) requeue(calls []delivery) {
	for _, d := range calls {
		heap.Push(&s.due, d.job)
	}
}

// statusOf tells of one capture only, as callbacks do.
func (r *record) statusOf(captureID string) payment.Status {
	st := r.status()
	st.Captures = slices.DeleteFunc(st.Captures, func(c payment.Capture) bool { return c.ID != captureID })
	return st
}

func (s *Server) deliver(ctx context.Context, d delivery) error {
	body, err := json.Marshal(d.body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	sign(req.Header, s.options.Secret, callbackPurpose, s.now(), body)
	resp, err := s.callback.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// Reading a short answer to its end lets the connection be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	return nil
}

// finish records how a batch went, in one journal line.
func (s *Server) finish(ctx context.Context, calls []delivery, failures []error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := make(map[string]*record)
	var again []job
	for i, d := range calls {
		if failures[i] != nil && ctx.Err() != nil {
			again = append(again, d.job) // we stopped, not they
			continue
		}
		r := changed[d.job.payment]
		if r == nil {
			r = s.payments[d.job.payment].clone()
			changed[r.ID] = r
		}
		at := slices.IndexFunc(r.Calls, func(c call) bool { return c.Number == d.job.call })
		c := &r.Calls[at]
		switch {
		case failures[i] == nil:
			r.Calls = slices.Delete(r.Calls, at, at+1)
		case c.Tries >= len(s.options.RetryDelays):
			s.log.Warn("sandbox gave up a callback", "payment", r.ID, "tries", c.Tries+1, "reason", failures[i])
			r.Calls = slices.Delete(r.Calls, at, at+1)
		default:
			c.Due = s.now().Add(s.options.RetryDelays[c.Tries]).UnixMilli()
			c.Tries++
			s.log.Info("sandbox callback failed", "payment", r.ID, "tries", c.Tries, "reason", failures[i])
			again = append(again, job{at: c.Due, payment: r.ID, call: c.Number})
		}
	}
	for _, j := range again {
		heap.Push(&s.due, j)
	}
	records := make([]*record, 0, len(changed))
	for _, r := range changed {
		records = append(records, r)
	}
	if len(records) == 0 {
		return nil
	}
	return s.save(records...)
}
