package redisstock

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"sluice/internal/stock"
)

// fault says what a failed call means for one who wanted to change something.
// Redis says by the first word of an error why it did nothing; of all other
// failures it is not known how far the call came, unless it never got a connection.
func fault(err error) error {
	means := stock.ErrUnknown
	switch {
	case isCode(err, "OOM"): // landing makes room again, so less load helps
		means = stock.ErrOverloaded
	case isCode(err, "NOSCRIPT", "LOADING", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS", "BUSY", "MOVED", "ASK",
		"NOAUTH", "NOPERM", "WRONGPASS"), isDial(err):
		means = stock.ErrNotReady
	}
	return fmt.Errorf("%w: redis: %w", means, err)
}

// errFenced: the script is there, and the bucket is not in its epoch.
var errFenced = fmt.Errorf("%w: fenced", stock.ErrNotReady)

// ofAnEpoch says whether Redis itself has answered that a bucket does not accept
// in an epoch. Whoever could not ask it has learnt nothing of the kind.
func ofAnEpoch(err error) bool { return errors.Is(err, errFenced) || isCode(err, "NOSCRIPT") }

// asRead is fault for one who changed nothing.
func asRead(err error) error {
	if errors.Is(err, stock.ErrUnknown) {
		return fmt.Errorf("%w: %v", stock.ErrNotReady, err)
	}
	return err
}

// isCode says whether err is an error that Redis answered and that starts with
// one of the words.
func isCode(err error, codes ...string) bool {
	var e *rueidis.RedisError
	if !errors.As(err, &e) || e.IsNil() {
		return false
	}
	code, _, _ := strings.Cut(e.Error(), " ")
	return slices.Contains(codes, code)
}

// isDial says whether no connection could be made, so that nothing was sent.
func isDial(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "dial"
}
