package redisgate

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"sluice/internal/lib/limit"
)

var (
	//go:embed lua/bucket.lua
	bucketText string
	//go:embed lua/grant.lua
	grantText string
	//go:embed lua/giveback.lua
	giveBackText string

	grantScript    = rueidis.NewLuaScript(bucketText + grantText)
	giveBackScript = rueidis.NewLuaScript(bucketText + giveBackText)
)

// MaxPoolName bounds the name of a pool, in bytes; at least 1.
const MaxPoolName = 256

// Pool is a limit.Pool on Redis, and on its clock. Each call is one script.
//
// With Redis away a call is an error within Options.Timeout. A limit.Budget then
// spends what it holds, at most two leases until they run out, and refuses
// after that; Budget.Silence tells how long it has been so, and who would
// rather go on keeps Limit/P by a Limiter of the process meanwhile. A Redis that
// lost its memory begins with a full bucket: at most Burst more for each loss.
//
// Redis' clock may step. Forward, it refills the bucket by the step, at most to
// the full, and ends leases early at the pool; back, the bucket does not refill
// for that moment and goes on from there.
type Pool struct {
	redis         *redis
	bucket, lease string   // keys; to that of leases an id is added
	terms         []string // what each script begins with
}

// Pool is the pool of this name, for every process that names it. Rates change
// by version: all processes obey the newest that the pool has heard of, so
// while an edit is on its way they do not pull it to and fro. What is owed
// stands over an edit, as in limit.Limiter's. A pool that nobody owes anything is
// forgotten, version and all.
//
// Per is rounded up to whole microseconds, validity down to them; validity is
// 1 ms..1 h. Errors: limit.ErrRate, for other algorithms than the token bucket
// as well; limit.ErrPool.
func (s *Shared) Pool(name string, version int64, r limit.Rate, validity time.Duration) (*Pool, error) {
	if len(name) < 1 || len(name) > MaxPoolName {
		return nil, fmt.Errorf("%w: a name of %d bytes: 1 to %d", limit.ErrPool, len(name), MaxPoolName)
	}
	if version < 0 || version >= 1<<53 {
		return nil, fmt.Errorf("%w: version %d: 0 to below 2^53", limit.ErrPool, version)
	}
	if validity < time.Millisecond || validity > time.Hour {
		return nil, fmt.Errorf("%w: leases valid for %s: 1ms to 1h", limit.ErrPool, validity)
	}
	if r.Algorithm != limit.TokenBucket {
		return nil, fmt.Errorf("%w: a pool is a token bucket, not %s", limit.ErrRate, r.Algorithm)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	burst := r.Burst
	if burst == 0 {
		burst = r.Limit
	}
	tag := "sluice:pool:{" + escape(name) + "}"
	return &Pool{redis: s.redis, bucket: tag + "b", lease: tag + "l:", terms: []string{
		number(version), number(r.Limit), number(int64((r.Per + time.Microsecond - 1) / time.Microsecond)), number(burst),
		number(int64(validity / time.Microsecond)),
	}}, nil
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// Grant fulfils limit.Pool.
func (p *Pool) Grant(ctx context.Context, id string, want int64) (limit.Lease, error) {
	if err := limit.CheckLease(id, want, 1); err != nil {
		return limit.Lease{}, err
	}
	reply, err := p.run(ctx, grantScript, id, want)
	if err != nil {
		return limit.Lease{}, fmt.Errorf("grant of a pool: %w", err)
	}
	var n [3]int64
	if err := integers(reply, n[:]); err != nil {
		return limit.Lease{}, fmt.Errorf("grant of a pool: %w", err)
	}
	return limit.Lease{Permits: n[0], ValidFor: time.Duration(n[1]) * time.Microsecond, Again: time.Duration(n[2]) * time.Microsecond}, nil
}

// Return fulfils limit.Pool.
func (p *Pool) Return(ctx context.Context, id string, unspent int64) error {
	if err := limit.CheckLease(id, unspent, 0); err != nil {
		return err
	}
	if _, err := p.run(ctx, giveBackScript, id, unspent); err != nil {
		return fmt.Errorf("return to a pool: %w", err)
	}
	return nil
}

func (p *Pool) run(ctx context.Context, s *rueidis.Lua, id string, permits int64) ([]rueidis.RedisMessage, error) {
	args := append(make([]string, 0, len(p.terms)+1), p.terms...)
	return p.redis.run(ctx, s, []string{p.bucket, p.lease + id}, append(args, number(permits)))
}

// integers reads a list of as many numbers as there is room for.
func integers(reply []rueidis.RedisMessage, into []int64) (err error) {
	if len(reply) != len(into) {
		return fmt.Errorf("a reply of %d values, not %d", len(reply), len(into))
	}
	for i := range into {
		if into[i], err = reply[i].AsInt64(); err != nil {
			return err
		}
	}
	return nil
}
