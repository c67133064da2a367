package redisstock

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"sluice/internal/stock"
)

// maxTexts bounds what is remembered of terms: an activity makes a handful of
// quotes, and forgetting costs a question.
const maxTexts = 4096

func digestOf(terms []byte) (d digest) {
	sum := sha256.Sum256(terms)
	copy(d[:], sum[:])
	return d
}

// texts remembers terms by digest.
type texts struct {
	mu sync.RWMutex
	of map[digest][]byte
}

func (t *texts) get(d digest) ([]byte, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	text, ok := t.of[d]
	return text, ok
}

func (t *texts) put(d digest, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil || len(t.of) >= maxTexts {
		t.of = make(map[digest][]byte)
	}
	t.of[d] = text
}

// known remembers which terms a bucket has. What it had in this epoch it has:
// it would not accept in it any more if it had lost anything.
type known struct {
	mu sync.RWMutex
	of map[digest]struct{}
}

func (k *known) has(d digest) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.of[d]
	return ok
}

func (k *known) put(d digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil || len(k.of) >= maxTexts {
		k.of = make(map[digest]struct{})
	}
	k.of[d] = struct{}{}
}

// wording answers the terms of digests that a bucket has.
func (l *Ledger) wording(ctx context.Context, b *bucket, wanted ...digest) ([][]byte, error) {
	found := make([][]byte, len(wanted))
	var fields []string
	var where []int
	for i, d := range wanted {
		if d == (digest{}) {
			continue
		}
		text, ok := l.terms.get(d)
		if !ok {
			fields, where = append(fields, string(d[:])), append(where, i)
		}
		found[i] = text
	}
	if len(fields) == 0 {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	values, err := l.client.Do(ctx, l.client.B().Hmget().Key(b.t).Field(fields...).Build()).ToArray()
	if err != nil {
		return nil, asRead(fault(err))
	}
	for i, at := range where {
		text, err := values[i].ToString()
		if err != nil {
			return nil, fmt.Errorf("%w: terms are missing in bucket %d of %s", stock.ErrNotReady, b.place.Bucket, b.place.Activity)
		}
		found[at] = []byte(text)
		l.terms.put(wanted[at], found[at])
	}
	return found, nil
}
