// Package redisgate is what the gateways of a fleet share for the gate, on
// Redis: pools of permits (lib/limit), waiting rooms and who is there
// (gate/waiting), and what may be used once. It owns their keys and scripts
// (DESIGN.md).
//
// Invariants: a call that changes a pool, a room's record or what was used is
// one script or one command, so all of it or nothing; all keys of a room, and all
// of a pool, are in one slot; every key but those of a room's record expires by
// itself; no call is sent twice.
//
// It refuses to guess: of a room that Redis has lost it says that there is
// none, and of a call whose answer was lost, that it failed.
package redisgate

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"sluice/internal/lib/redisurl"
)

// Options bound the calls. Zero fields take the defaults.
type Options struct {
	// Timeout bounds one call, waiting for its turn included; default 2 s. Where
	// a connection has to be made anew meanwhile, it may be a few of it. A call of
	// many parts (Line.Entries) takes it for each.
	Timeout time.Duration
	// Now is the clock by which Once reads its deadlines; default time.Now.
	Now func() time.Time
}

// maxInFlight bounds the calls under way. More wait for a place, and no longer
// than for an answer. The client has as many places a connection; whoever waits
// there heeds no deadline.
const maxInFlight = 1024

// Shared is one Redis, or one cluster, as all the gateways have it.
type Shared struct {
	Line     *Line
	Presence *Presence
	Once     *Once

	redis *redis
}

// Open connects to the Redis of a stock URL: redis:// or rediss://, several
// addresses, a cluster or sentinels. What in the URL is the ledger's alone is
// passed over. Whether that Redis keeps what it is told is checked where the
// ledger opens it.
func Open(ctx context.Context, url string, o Options) (*Shared, error) {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	where, _, err := redisurl.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("redis of the gate: %w", err)
	}
	client, err := rueidis.NewClient(where.Client("sluice-gate", o.Timeout))
	if err != nil {
		return nil, fmt.Errorf("redis of the gate: %w", err)
	}
	r := &redis{client: client, timeout: o.Timeout, places: make(chan struct{}, maxInFlight)}
	if err := r.do(ctx, client.B().Ping().Build()).Error(); err != nil {
		client.Close()
		return nil, fmt.Errorf("redis of the gate: %w", err)
	}
	return &Shared{Line: &Line{r}, Presence: &Presence{r}, Once: &Once{r, o.Now}, redis: r}, nil
}

// Close ends the connections. Calls under way fail.
func (s *Shared) Close() { s.redis.client.Close() }

// redis is the client, with bounds.
type redis struct {
	client  rueidis.Client
	timeout time.Duration
	places  chan struct{}
}

// enter waits for a place, at most the time-out, which then goes on to run
// for the call. leave gives the place back.
func (r *redis) enter(ctx context.Context) (bound context.Context, leave func(), err error) {
	bound, cancel := context.WithTimeout(ctx, r.timeout)
	if err := bound.Err(); err != nil {
		cancel()
		return nil, nil, err
	}
	select {
	case r.places <- struct{}{}:
		return bound, func() { <-r.places; cancel() }, nil
	case <-bound.Done():
		cancel()
		return nil, nil, fmt.Errorf("%d calls to redis are under way: %w", maxInFlight, bound.Err())
	}
}

func (r *redis) do(ctx context.Context, c rueidis.Completed) rueidis.RedisResult {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	defer leave()
	return r.client.Do(ctx, c)
}

// doAll sends commands one after the other and answers their values, or the
// first error.
func (r *redis) doAll(ctx context.Context, commands []rueidis.Completed) ([]rueidis.RedisMessage, error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	values := make([]rueidis.RedisMessage, len(commands))
	for i, result := range r.client.DoMulti(ctx, commands...) {
		if values[i], err = result.ToMessage(); err != nil && !rueidis.IsRedisNil(err) {
			return nil, err
		}
	}
	return values, nil
}

// run calls a script, and sends its text where Redis has not got it: these
// scripts carry no fence, unlike those of the ledger. The reply is a list.
func (r *redis) run(ctx context.Context, s *rueidis.Lua, keys, args []string) ([]rueidis.RedisMessage, error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.Exec(ctx, r.client, keys, args).ToArray()
}

// escape makes an id fit for a hash tag: bytes other than letters, digits, '.',
// '_' and '-' become %XX.
func escape(id string) string {
	p := make([]byte, 0, len(id))
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			p = append(p, c)
		default:
			p = fmt.Appendf(p, "%%%02X", c)
		}
	}
	return string(p)
}
