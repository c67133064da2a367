package storm

import (
	"strconv"
	"strings"
)

// bucketOf is the bucket of n in which a user's reservations are: FNV-1a of the
// user in 32 bits, mixed by the finalizer of MurmurHash3, modulo n. It is written
// here again so that a shop that puts somebody elsewhere is found out.
func bucketOf(user string, n int) int {
	if n <= 1 {
		return 0
	}
	h := uint32(2166136261)
	for i := range len(user) {
		h = (h ^ uint32(user[i])) * 16777619
	}
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return int((h ^ h>>16) % uint32(n))
}

// place is what a reservation's id says of where it was made:
// "activity.bucket.epoch.number".
type place struct{ bucket, epoch int }

func placeOf(reservation string) (p place, ok bool) {
	parts := strings.Split(reservation, ".")
	if len(parts) < 4 {
		return p, false
	}
	parts = parts[len(parts)-3:]
	bucket, err1 := strconv.Atoi(parts[0])
	epoch, err2 := strconv.Atoi(parts[1])
	return place{bucket, epoch}, err1 == nil && err2 == nil
}
