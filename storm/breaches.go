package storm

import (
	"fmt"
	"sync"
)

// breaches are sentences about what went wrong: the first hundred, and how many there were.
type breaches struct {
	mu    sync.Mutex
	first []string
	total int
}

const maxBreaches = 100

func (b *breaches) add(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total++
	if len(b.first) < maxBreaches {
		b.first = append(b.first, fmt.Sprintf(format, args...))
	}
}

// list is the sentences, with a last one that counts those left out.
func (b *breaches) list() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := append([]string{}, b.first...)
	if left := b.total - len(b.first); left > 0 {
		out = append(out, fmt.Sprintf("and %d more", left))
	}
	return out
}
