package stock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Place names a bucket of an activity.
type Place struct {
	Activity ActivityID
	Bucket   uint16
}

// Log is the name of the bucket's log: "activity/bucket".
func (p Place) Log() LogID {
	return LogID(string(p.Activity) + "/" + strconv.Itoa(int(p.Bucket)))
}

// PlaceOf reads what Place.Log wrote, or answers ErrInvalid.
func PlaceOf(log LogID) (Place, error) {
	activity, bucket, ok := cutLast(string(log), '/')
	n, err := strconv.ParseUint(bucket, 10, 16)
	if !ok || err != nil || activity == "" {
		return Place{}, fmt.Errorf("%w: %q is not the log of a bucket", ErrInvalid, log)
	}
	return Place{ActivityID(activity), uint16(n)}, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// BucketOf is the bucket in which a user's reservations of an activity are:
// FNV-1a of the user in 32 bits, its bits mixed by the finalizer of MurmurHash3,
// modulo n. Without that, users whose names differ in a few bits crowd into some of
// the buckets. Gateways and workers of every release must agree.
func BucketOf(user UserID, n uint16) uint16 {
	if n <= 1 {
		return 0
	}
	h := uint32(2166136261)
	for i := range len(user) {
		h = (h ^ uint32(user[i])) * 16777619
	}
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return uint16((h ^ h>>16) % uint32(n))
}

// Share is the part of an activity's allocation that a bucket starts with: of
// n buckets the first get the units that do not divide.
func (a Allocation) Share(bucket uint16) Allocation {
	n := int(max(a.Buckets, 1))
	items := make([]Item, len(a.Items))
	for i, it := range a.Items {
		items[i] = it
		items[i].Units = it.Units / n
		if int(bucket) < it.Units%n {
			items[i].Units++
		}
	}
	a.Items, a.Bucket = items, bucket
	return a
}

// Engine is a ledger of buckets as their keepers see it: it decides fast, and
// it can lose what it has decided last. So nothing is final there until its
// keeper has landed it, and only the keeper lets a bucket accept.
//
// Each bucket accepts in an epoch, which its keeper raises whenever the engine
// may have lost something. An engine that was restarted, emptied, rolled back
// or replaced does not accept by itself: it answers ErrNotReady until Activate.
//
// token is the keeper's fencing token (order.Store's Fence). What comes with
// a smaller one than the engine has seen is ErrStale and changes nothing.
type Engine interface {
	// Head answers the newest entry of a bucket that accepts in this epoch; the
	// zero Position before any. ErrNotReady when it does not accept in it, which
	// has it rebuilt; an engine that could not be asked is any other error.
	Head(ctx context.Context, p Place, epoch uint32) (Cursor, error)
	// Fence ends acceptance. What the bucket's log still has can be read by Tail.
	Fence(ctx context.Context, p Place, token uint64) error
	// Restore replaces all that the engine keeps of a fenced bucket by the book,
	// whose epoch it will accept in. In steps; Activate makes it count.
	Restore(ctx context.Context, p Place, token uint64, b *Book) error
	// Activate starts acceptance in the epoch of the book that was restored.
	Activate(ctx context.Context, p Place, token uint64, epoch uint32) error
	// Landed tells that entries up to and including the cursor are in the store:
	// their reservations are held from now on, no longer pending.
	Landed(ctx context.Context, upTo Cursor) error
	// Retire lets everything kept of a fenced bucket go after a while.
	Retire(ctx context.Context, p Place, token uint64) error
}
