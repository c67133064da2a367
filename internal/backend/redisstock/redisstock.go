// Package redisstock is the ledger on Redis: one script decides, marks the user
// and appends to the stream of the user's bucket, by the rules of stock.Book.
// It owns the scripts, the keys and the form of the stream (DESIGN.md).
//
// Invariants: a bucket accepts only in the epoch that its keeper has activated,
// since the epoch is in the scripts' text and nobody but the keeper loads them;
// an accepted reserve is Pending until the keeper has landed it; what a call
// changed is all of it or nothing; no write is ever sent twice.
//
// It refuses to have the last word (that is the keeper's book), to open or
// rebuild a bucket by itself, and to run on a Redis that evicts keys or keeps
// no append-only file.
package redisstock

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"

	"sluice/internal/stock"
)

// Options bound the ledger. Zero fields take the defaults.
type Options struct {
	Log         *slog.Logger  // default slog.Default()
	Timeout     time.Duration // of one call to Redis, default 2 s
	LandWithin  time.Duration // how long an answer waits for landing, default 5 s; then it is stock.ErrUnknown
	PullWithin  time.Duration // how long a bucket waits for units of others, default 500 ms; then it is stock.ErrNotReady
	MaxInFlight int           // calls under way, default 8,192; more are stock.ErrOverloaded
	Slack       uint64        // entries that Trim leaves for followers, default 4,096
	Retain      time.Duration // how long Redis keeps a retired bucket, default 1 h

	// Knows says whether an activity of which Redis has nothing may exist: then
	// Redis has lost it, or has not got it yet (stock.ErrNotReady), and it is not
	// stock.ErrNoSuchActivity. nil: any may.
	Knows func(stock.ActivityID) bool
	// NewID makes the ids of moves: 1..40 bytes without '-', never twice. The
	// default is 16 random hexadecimal digits.
	NewID func() string
	// CallerTime takes the time of the requests instead of that of Redis: for
	// tests, whose clock is their own.
	CallerTime bool
}

// Ledger implements stock.Ledger, stock.Log and stock.Engine.
type Ledger struct {
	config Config
	o      Options
	client rueidis.Client

	inFlight atomic.Int64
	meeting  singleflight.Group // asks for activities and epochs
	pulling  singleflight.Group
	terms    texts

	mu         sync.RWMutex
	activities map[stock.ActivityID]*activity
	buckets    map[stock.Place]*bucket
	attempts   map[stock.Place]attempt // restores that await Activate
}

var (
	_ stock.Ledger = (*Ledger)(nil)
	_ stock.Log    = (*Ledger)(nil)
	_ stock.Engine = (*Ledger)(nil)
)

// Open connects, and refuses a Redis that could lose what it was told to keep:
// see Config for the URL. Close releases the connections.
func Open(ctx context.Context, url string, o Options) (*Ledger, error) {
	config, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.NewID == nil {
		o.NewID = newID
	}
	o.Timeout = orDefault(o.Timeout, 2*time.Second)
	o.LandWithin = orDefault(o.LandWithin, 5*time.Second)
	o.PullWithin = orDefault(o.PullWithin, 500*time.Millisecond)
	o.MaxInFlight = orDefault(o.MaxInFlight, 8192)
	o.Slack = orDefault(o.Slack, 4096)
	o.Retain = orDefault(o.Retain, time.Hour)
	client, err := rueidis.NewClient(config.Client("sluice", o.Timeout))
	if err != nil {
		return nil, fmt.Errorf("redis at %s: %w", strings.Join(config.Addrs, ","), err)
	}
	l := &Ledger{
		config: config, o: o, client: client, activities: map[stock.ActivityID]*activity{},
		buckets: map[stock.Place]*bucket{}, attempts: map[stock.Place]attempt{},
	}
	if err := l.checkServers(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return l, nil
}

// Close ends the connections. Calls under way are answered stock.ErrUnknown.
func (l *Ledger) Close() { l.client.Close() }

// Buckets is how many buckets activities that open from now on are to have.
func (l *Ledger) Buckets() uint16 { return l.config.Buckets }

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// enter takes a place among the calls under way; leave gives it back.
func (l *Ledger) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: nothing was sent: %w", stock.ErrNotReady, err)
	}
	if l.inFlight.Add(1) > int64(l.o.MaxInFlight) {
		l.inFlight.Add(-1)
		return fmt.Errorf("%w: %d calls to redis under way", stock.ErrOverloaded, l.o.MaxInFlight)
	}
	return nil
}

func (l *Ledger) leave() { l.inFlight.Add(-1) }

// run calls a script that decides. The first value of an array reply is its
// tag; reserve alone answers a string, and then the tag is "". Whatever says
// that the bucket does not accept in this epoch makes the ledger forget that it did.
func (l *Ledger) run(ctx context.Context, b *bucket, e *epoch, s script, keys, args []string) (tag string, reply []rueidis.RedisMessage, text string, err error) {
	if err := l.enter(ctx); err != nil {
		return "", nil, "", err
	}
	defer l.leave()
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	result := l.client.Do(ctx, l.client.B().Evalsha().Sha1(e.sha[s]).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
	return b.read(e, result)
}

// read takes a script's reply apart.
func (b *bucket) read(e *epoch, result rueidis.RedisResult) (tag string, reply []rueidis.RedisMessage, text string, err error) {
	message, err := result.ToMessage()
	if err != nil {
		if isCode(err, "NOSCRIPT") {
			b.forget(e)
		}
		return "", nil, "", fault(err)
	}
	if message.IsString() {
		text, err = message.ToString()
		return "", nil, text, err
	}
	reply, err = message.ToArray()
	if err == nil && len(reply) > 0 {
		tag, err = reply[0].ToString()
	}
	if err != nil || tag == "" {
		return "", nil, "", fmt.Errorf("%w: reply of redis: %w", stock.ErrUnknown, err)
	}
	if tag == "FENCED" {
		b.forget(e)
		return "", nil, "", fmt.Errorf("%w: bucket %d of %s does not accept in epoch %d", errFenced, b.place.Bucket, b.place.Activity, e.number)
	}
	return tag, reply[1:], "", nil
}
