package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/test/fleet"
	"sluice/test/servers"
)

// regulars are shoppers beside the storm, with a sale of their own, who look at
// what they have done at once, as people do: an order that was accepted is found
// by its owner, one that was cancelled is shown so, at whichever gateway they come
// in and however late replicas are. Some orders of each shard they keep, so that a
// fault of one shard can ask those of another whether they can go on.
//
// At the end all that they gave back has to be free again: no event of theirs
// was lost, and none was applied twice.
type regulars struct {
	st       *stage
	activity string
	over     context.Context    // no more visits begin
	close    context.CancelFunc // over
	stop     context.CancelFunc // visits are broken off
	all      sync.WaitGroup

	mu        sync.Mutex
	wrong     []string
	kept      map[int][]bought // by shard: landed, and not cancelled
	open      int              // accepted, and neither cancelled nor refused
	landed    int              // seen landed
	cancelled int
	slowest   time.Duration // from the receipt until it was seen landed
}

// bought is one order of a regular.
type bought struct{ user, order string }

const (
	regularUnits = 20_000 // more than they get to buy
	regularPause = 250 * time.Millisecond
	oldest       = 3 * time.Second // that anything is which is shown: what a replica may lag, and a look
	keeps        = 8               // orders of each shard that are left as they are, for faults to ask about
)

// admit puts the regulars' sale up and lets them in, as many at a time as there
// are shards.
func (s *stage) admit(ctx context.Context) (*regulars, error) {
	r := &regulars{st: s, activity: "regulars-" + strconv.FormatInt(time.Now().UnixMilli(), 36), kept: map[int][]bought{}}
	opens := time.Now().Add(-time.Second).UTC().Format("2006-01-02T15:04:05.000Z")
	for _, step := range []struct{ path, body string }{
		{"/v1/skus", `{"id":"` + r.activity + `","title":"Cup","description":"","image":"","price":{"amount":9900,"currency":"CNY"}}`},
		{"/v1/activities", fmt.Sprintf(`{"id":%[1]q,"kind":"flash","title":"Regulars","opens_at":%[2]q,"hold_seconds":600,"buckets":2,
			"items":[{"sku":%[1]q,"units":%[3]d,"per_user":1,"per_order":1}]}`, r.activity, opens, regularUnits)},
		{"/v1/activities/" + r.activity + "/open", "{}"},
	} {
		if status, text := r.call(ctx, s.Console.Ops+step.path, http.MethodPost, fleet.OpsToken, step.body); status >= 300 {
			return nil, fmt.Errorf("the regulars' sale: %s: %d %s", step.path, status, text)
		}
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.over, r.close = context.WithCancel(ctx)
	for lane := range s.Shards {
		r.all.Go(func() {
			for n := 0; r.over.Err() == nil; n++ {
				r.visit(ctx, fmt.Sprintf("regular%d-%d", lane, n))
				s.rest(r.over, regularPause)
			}
		})
	}
	return r, nil
}

// keep notes an order of a shard of which too few are kept; where it is, the
// databases say.
func (r *regulars) keep(ctx context.Context, b bought) bool {
	kept := false
	for n, shard := range r.st.Shards {
		few := false
		r.note(func() { few = len(r.kept[n]) < keeps })
		if !few {
			continue
		}
		row, err := shard.Primary().Query(ctx, "SELECT count(*) AS n FROM "+servers.SQLDatabase+".orders WHERE id = ?", b.order)
		if err == nil && row["n"] == "1" {
			r.note(func() { r.kept[n] = append(r.kept[n], b) })
			kept = true
		}
	}
	return kept
}

// visit is one user who buys, looks, and mostly thinks better of it.
func (r *regulars) visit(ctx context.Context, user string) {
	var receipt struct{ Order string }
	url := r.st.URL()
	ok := r.until(ctx, user+" buys", func() bool {
		status, text := r.as(ctx, user, http.MethodPost, url+"/v1/activities/"+r.activity+"/purchases", `{"sku":"`+r.activity+`","quantity":1}`)
		return status == http.StatusAccepted && json.Unmarshal([]byte(text), &receipt) == nil
	})
	if !ok {
		return
	}
	b, began := bought{user, receipt.Order}, time.Now()
	r.note(func() { r.open++ })
	landed := r.until(ctx, user+"'s order lands", func() bool {
		state := r.state(ctx, b)
		if state == "refused" {
			r.note(func() { r.open-- })
			return true
		}
		return state == "created"
	})
	if !landed || r.state(ctx, b) == "refused" {
		return
	}
	r.note(func() {
		r.landed++
		r.slowest = max(r.slowest, time.Since(began))
	})
	if !r.keep(ctx, b) {
		r.cancel(ctx, b)
	}
}

// cancel gives an order back. The gateway that did it shows it at once, and the
// others as soon as anything may be that old. It answers whether it could.
func (r *regulars) cancel(ctx context.Context, b bought) bool {
	var at *fleet.Process
	if !r.until(ctx, b.user+" cancels", func() bool {
		for _, at = range r.st.Gateways {
			status, text := r.as(ctx, b.user, http.MethodPost, "http://"+at.Addr+"/v1/orders/"+b.order+"/cancel", "{}")
			if status == http.StatusOK || strings.Contains(text, `"order_state"`) {
				return true
			}
		}
		return false
	}) {
		return false
	}
	r.note(func() { r.open--; r.cancelled++ })
	if state := r.stateAt(ctx, "http://"+at.Addr, b); state != "" && state != "cancelled" {
		r.blame("%s has cancelled order %s at %s and is shown there that it is %s", b.user, b.order, at.Name, state)
	}
	soon, stop := context.WithTimeout(ctx, oldest)
	defer stop()
	last := ""
	for _, at := range r.st.Gateways {
		err := await(soon, func(context.Context) error {
			if last = r.stateAt(ctx, "http://"+at.Addr, b); last != "" && last != "cancelled" {
				return errors.New(last)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			r.blame("%s has cancelled order %s at %s, and after %s is shown at another gateway that it is %s", b.user, b.order, at.Name, oldest, last)
		}
	}
	status, text := r.as(ctx, b.user, http.MethodGet, "http://"+at.Addr+"/v1/orders", "")
	if status == http.StatusOK && !strings.Contains(text, b.order) {
		r.blame("%s has order %s, which is not on the list of own orders at %s: %s", b.user, b.order, at.Name, text)
	}
	return true
}

// state is an order's to its owner; "" while nobody can say.
func (r *regulars) state(ctx context.Context, b bought) string { return r.stateAt(ctx, r.st.URL(), b) }

func (r *regulars) stateAt(ctx context.Context, url string, b bought) string {
	status, text := r.as(ctx, b.user, http.MethodGet, url+"/v1/orders/"+b.order, "")
	if status == http.StatusNotFound {
		r.blame("%s was given order %s, and is told that there is none: %s", b.user, b.order, text)
	}
	var doc struct{ State string }
	if status != http.StatusOK || json.Unmarshal([]byte(text), &doc) != nil {
		return ""
	}
	return doc.State
}

// goOn asks whether the orders of a shard can be read and cancelled, while
// another shard is away: several of them, each within a time.
func (r *regulars) goOn(ctx context.Context, shard, n int, within time.Duration) error {
	for range n {
		var b bought
		r.note(func() {
			if list := r.kept[shard]; len(list) > 0 {
				b, r.kept[shard] = list[0], list[1:]
			}
		})
		if b.user == "" {
			return fmt.Errorf("shard %d has no order to ask for", shard)
		}
		soon, stop := context.WithTimeout(ctx, within)
		ok := r.until(soon, "", func() bool { return r.state(soon, b) != "" }) && r.cancel(soon, b)
		stop()
		if !ok {
			return fmt.Errorf("order %s of %s in shard %d could not be read and cancelled within %s, though its shard is there", b.order, b.user, shard, within)
		}
	}
	return nil
}

// leave lets the last visits end and judges: the ledger holds what they have, and
// what they gave back is free.
func (r *regulars) leave(ctx context.Context) (wrong []string) {
	r.close()
	r.all.Wait()
	r.stop()
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), heals)
	defer stop()
	err := await(ctx, func(ctx context.Context) error {
		free, err := r.st.countOf(ctx, r.activity, "free")
		if err != nil {
			return err
		}
		held, err := r.st.countOf(ctx, r.activity, "held")
		if err == nil && (free != regularUnits-r.open || held != r.open) {
			err = fmt.Errorf("the regulars have %d orders; the ledger holds %d units and has %d free of %d", r.open, held, free, regularUnits)
		}
		return err
	})
	if err != nil {
		r.blame("%v", err)
	}
	_ = r.st.ask(ctx, http.MethodPost, "/v1/activities/"+r.activity+"/close", nil) // so that it costs nothing any more
	return r.wrong
}

// until asks again until it is so. What takes longer than all may take to be
// well again is wrong; what, if not empty, says of it.
func (r *regulars) until(ctx context.Context, what string, is func() bool) bool {
	within, stop := context.WithTimeout(ctx, 2*heals)
	defer stop()
	err := await(within, func(context.Context) error {
		if is() {
			return nil
		}
		return errors.New("not yet")
	})
	if err != nil && ctx.Err() == nil && what != "" {
		r.blame("not within %s: %s", 2*heals, what)
	}
	return err == nil
}

func (r *regulars) blame(format string, args ...any) {
	r.note(func() { r.wrong = append(r.wrong, fmt.Sprintf(format, args...)) })
}

func (r *regulars) note(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// String tells how much they did.
func (r *regulars) String() string {
	return fmt.Sprintf("regulars saw %d orders land, the slowest after %s, and cancelled %d", r.landed, r.slowest.Round(10*time.Millisecond), r.cancelled)
}

// seen is how many orders were seen landed so far.
func (r *regulars) seen() (n int) {
	r.note(func() { n = r.landed })
	return n
}

// as calls the shopper API through the balancer.
func (r *regulars) as(ctx context.Context, user, method, url, body string) (status int, text string) {
	token, err := r.st.Token(user)
	if err != nil {
		return 0, err.Error()
	}
	return r.call(ctx, url, method, token, body)
}

var shopperCalls = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

func (r *regulars) call(ctx context.Context, url, method, token, body string) (status int, text string) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Idempotency-Key", "k")
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := shopperCalls.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(bytes.TrimSpace(all))
}
