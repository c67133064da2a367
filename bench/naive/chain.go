package main

import (
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

//go:embed purchase.lua
var purchaseText string

//go:embed restore.lua
var restoreText string

var (
	purchaseScript = rueidis.NewLuaScript(purchaseText)
	restoreScript  = rueidis.NewLuaScript(restoreText)
)

const (
	queue        = "queue:orders"
	workers      = 2
	tries        = 3 // of what is retried
	retryPause   = 100 * time.Millisecond
	timeoutEvery = 100 * time.Millisecond
	timeoutBatch = 200 // orders cancelled in one round
)

var (
	errNothingFree = errors.New("nothing free")
	errLimit       = errors.New("limit reached")
	errChanging    = errors.New("the books do not stand still")
)

// chain is Redis, then a list, then SQL.
type chain struct {
	log   *slog.Logger
	redis rueidis.Client
	books *books
	now   func() time.Time

	activities sync.Map // id → activity; they never change
	last       atomic.Int64
}

// receipt is what a purchase is answered with, and what Redis remembers of it.
type receipt struct {
	Reservation string `json:"reservation"`
	Order       string `json:"order"`
	State       string `json:"state"`
	ExpiresAt   string `json:"expires_at"`
	Total       money  `json:"total"`
}

type money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// dialRedis waits for a Redis at a unix socket.
func dialRedis(ctx context.Context, socket string) (rueidis.Client, error) {
	for {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{socket}, ForceSingleClient: true, DisableCache: true,
			DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
		})
		if err == nil {
			return client, nil
		}
		if !pause(ctx, retryPause) {
			return nil, fmt.Errorf("redis: %w", err)
		}
	}
}

// pause waits, and says whether ctx still stands.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// again repeats what fails, a few times.
func again(ctx context.Context, do func() error) (err error) {
	for range tries {
		if err = do(); err == nil || !pause(ctx, retryPause) {
			return err
		}
	}
	return err
}

func keys(activity string) []string {
	at := "{" + activity + "}"
	return []string{"stock:" + at, "marks:" + at, "receipts:" + at, "changes:" + at}
}

func ownerKey(order string) string { return "owner:" + order }

// nextID is the time in ms and a count, greater than all before it.
func (c *chain) nextID() int64 {
	for {
		last := c.last.Load()
		next := max(c.now().UnixMilli()<<10, last+1)
		if c.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

func (c *chain) activity(ctx context.Context, id string) (activity, error) {
	if a, ok := c.activities.Load(id); ok {
		return a.(activity), nil
	}
	a, err := c.books.activity(ctx, id)
	if err == nil {
		c.activities.Store(id, a)
	}
	return a, err
}

// warm puts the units on sale into Redis, unless they are there.
func (c *chain) warm(ctx context.Context, a activity) error {
	return c.redis.Do(ctx, c.redis.B().Set().Key(keys(a.ID)[0]).Value(strconv.Itoa(a.Units)).Nx().Build()).Error()
}

// purchase deducts in Redis, and then sends the message.
func (c *chain) purchase(ctx context.Context, a activity, user, key string) (receipt, error) {
	id, now := c.nextID(), c.now()
	expires := now.Add(a.Hold)
	name := strconv.FormatInt(id, 10)
	fresh := receipt{Reservation: "r" + name, Order: name, State: "pending", ExpiresAt: stamp(expires), Total: money{a.Amount, a.Currency}}
	text, err := json.Marshal(fresh)
	if err != nil {
		return receipt{}, err
	}
	field := user + "|" + key
	answer, err := purchaseScript.Exec(ctx, c.redis, append(keys(a.ID), ownerKey(name)), []string{user, field, name, string(text)}).ToArray()
	if err != nil {
		return receipt{}, fmt.Errorf("deduct: %w", err)
	}
	left, err := answer[0].AsInt64()
	if err != nil {
		return receipt{}, fmt.Errorf("deduct: %w", err)
	}
	switch {
	case left == -1:
		return receipt{}, errNothingFree
	case left == -2:
		return receipt{}, errLimit
	case left == -3:
		return c.known(ctx, answer[1])
	}
	// Here is the crack: the unit is taken and nobody knows what for.
	o := order{ID: id, Activity: a.ID, User: user, Key: key, Expires: expires.UnixMilli(), Amount: a.Amount, Currency: a.Currency}
	if err := c.send(ctx, o); err != nil {
		undo := c.restore(ctx, o, field)
		return receipt{}, errors.Join(fmt.Errorf("send: %w", err), undo)
	}
	return fresh, nil
}

// known is the receipt of a key that is known, in the state of its order.
func (c *chain) known(ctx context.Context, text rueidis.RedisMessage) (r receipt, err error) {
	s, err := text.ToString()
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(s), &r); err != nil {
		return r, err
	}
	found, err := c.books.orders(ctx, `id = ?`, r.Order)
	if err != nil || len(found) == 0 {
		return r, err
	}
	r.State = found[0].reservation()
	return r, nil
}

// reservation is the state of an order in the words of its reservation.
func (o *order) reservation() string {
	if o.Reason == timedOut {
		return "expired"
	}
	return map[string]string{"created": "held", "paid": "confirmed", "cancelled": "released", "refused": "refused"}[o.State]
}

func (c *chain) send(ctx context.Context, o order) error {
	message, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return c.redis.Do(ctx, c.redis.B().Lpush().Key(queue).Element(string(message)).Build()).Error()
}

// work takes one message from the list and writes it. Between the two the
// message is nowhere but here.
func (c *chain) work(ctx context.Context) error {
	pair, err := c.redis.Do(ctx, c.redis.B().Brpop().Key(queue).Timeout(1).Build()).AsStrSlice()
	switch {
	case rueidis.IsRedisNil(err):
		return nil
	case err != nil:
		return fmt.Errorf("take a message: %w", err)
	}
	var o order
	if err := json.Unmarshal([]byte(pair[1]), &o); err != nil {
		return fmt.Errorf("read a message: %w", err)
	}
	err = again(ctx, func() error { return c.books.land(ctx, o) })
	if err != nil {
		return errors.Join(fmt.Errorf("land order %d: %w", o.ID, err), c.send(ctx, o))
	}
	return nil
}

const timedOut = "timed_out"

// timeouts cancels orders that were not paid in time.
func (c *chain) timeouts(ctx context.Context) error {
	late, err := c.books.orders(ctx, `state = 'created' AND expires < ? ORDER BY expires LIMIT ?`, c.now().UnixMilli(), timeoutBatch)
	if err != nil {
		return fmt.Errorf("find unpaid orders: %w", err)
	}
	for _, o := range late {
		if _, err := c.cancel(ctx, o, timedOut); err != nil {
			return err
		}
	}
	return nil
}

// cancel ends an unpaid order in SQL, and then gives its unit back in Redis.
func (c *chain) cancel(ctx context.Context, o order, reason string) (bool, error) {
	done, err := c.books.cancel(ctx, o, reason)
	if err != nil || !done {
		return done, err
	}
	return true, c.restore(ctx, o, "")
}

func (c *chain) restore(ctx context.Context, o order, forget string) error {
	err := again(ctx, func() error {
		return restoreScript.Exec(ctx, c.redis, keys(o.Activity), []string{o.User, strconv.FormatInt(o.ID, 10), forget}).Error()
	})
	if err != nil {
		return fmt.Errorf("give back the unit of order %d: %w", o.ID, err)
	}
	return nil
}

// owner says for whom Redis accepted an order; "" if it does not know.
func (c *chain) owner(ctx context.Context, order string) (string, error) {
	user, err := c.redis.Do(ctx, c.redis.B().Get().Key(ownerKey(order)).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return user, err
}

// compared is both books, read while nothing was changed in Redis.
type compared struct {
	free   int // units, by Redis
	queued int // messages
	sum
}

func (c *chain) compare(ctx context.Context, id string) (now compared, err error) {
	k := keys(id)
	look := func() (free int, changes string, err error) {
		pair, err := c.redis.Do(ctx, c.redis.B().Mget().Key(k[0], k[3]).Build()).ToArray()
		if err != nil {
			return 0, "", err
		}
		text, err := pair[0].ToString()
		if err != nil {
			return 0, "", fmt.Errorf("stock: %w", err)
		}
		if changes, err = pair[1].ToString(); err != nil && !rueidis.IsRedisNil(err) {
			return 0, "", err
		}
		free, err = strconv.Atoi(text)
		return free, changes, err
	}
	for range 100 {
		free, before, err := look()
		if err != nil {
			return now, err
		}
		if now.sum, err = c.books.sum(ctx, id); err != nil {
			return now, err
		}
		_, after, err := look()
		if err != nil {
			return now, err
		}
		if before == after {
			now.free = free
			n, err := c.redis.Do(ctx, c.redis.B().Llen().Key(queue).Build()).AsInt64()
			now.queued = int(n)
			return now, err
		}
	}
	return now, errChanging
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
