package redisgate

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// onceSlack is how much longer than asked for a spent id is remembered: the
// clocks of gateways, by which the others judge its deadline, may differ by so much.
const onceSlack = time.Minute

// Once is what may be used once, by all the gateways together.
type Once struct {
	redis *redis
	now   func() time.Time
}

// Spend says whether this is the first use of an id; it is remembered until the
// deadline, and a minute longer for clocks that differ. After an error it is not known whether
// the id is spent: whoever cannot ask again treats it as such. Asking again
// after a lost answer says that it was not the first.
func (o *Once) Spend(ctx context.Context, id string, until time.Time) (first bool, err error) {
	keep := max(until.Sub(o.now()), 0) + onceSlack
	err = o.redis.do(ctx, o.redis.client.B().Set().Key("sluice:once:"+id).Value("").Nx().PxMilliseconds(keep.Milliseconds()).Build()).Error()
	switch {
	case err == nil:
		return true, nil
	case rueidis.IsRedisNil(err):
		return false, nil
	}
	return false, fmt.Errorf("spend an id: %w", err)
}
