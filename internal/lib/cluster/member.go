// Package cluster is what the processes of a fleet know of one another: who is
// there (Member), and what is set for all of them (Document). It owns the words,
// their bounds, and Presence, which keeps one process on the list by steps.
//
// Invariants: a member is listed as long as it says so, and no longer than its
// time to live after it last did; versions of a document ascend by one, and an
// earlier one can be read and made the newest again, never changed.
//
// It refuses to decide anything by the list. Who is missing from it may run,
// and who is on it may be dead: what only one process may do needs a lease.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of what can be said.
const (
	MaxName     = 128       // bytes of a name, at least 1
	MaxMetadata = 64        // addresses, and pieces of metadata, of a member
	MaxData     = 256 << 10 // bytes of a document
	MinTTL      = time.Second
	MaxTTL      = time.Hour
)

// ErrInvalid: something is out of bounds.
var ErrInvalid = errors.New("invalid")

// Member is one process, in one life of it.
type Member struct {
	Name      string            `json:"name"` // of this life of this process alone
	Role      string            `json:"role"`
	Addresses map[string]string `json:"addresses,omitempty"` // what it serves → host:port
	Metadata  map[string]string `json:"metadata,omitempty"`  // such as its version
	Joined    time.Time         `json:"joined"`
	// Ailing says why the member cannot do its work, by its own judgement; ""
	// for one that is well. Since is when it became as it is.
	Ailing string    `json:"ailing,omitempty"`
	Since  time.Time `json:"since"`
}

// Check says what is out of bounds.
func (m Member) Check() error {
	switch {
	case len(m.Name) < 1 || len(m.Name) > MaxName:
		return fmt.Errorf("%w: a member's name has 1 to %d bytes", ErrInvalid, MaxName)
	case len(m.Addresses) > MaxMetadata || len(m.Metadata) > MaxMetadata:
		return fmt.Errorf("%w: member %s has more than %d addresses or pieces of metadata", ErrInvalid, m.Name, MaxMetadata)
	}
	return nil
}

// roster is where members are listed.
type roster interface {
	// Join lists a member, in place of what was said of it, for ttl from now.
	Join(ctx context.Context, m Member, ttl time.Duration) error
	// Leave takes a member off the list at once. One that is not there is no error.
	Leave(ctx context.Context, name string) error
}

// Presence keeps a process on the list. Step belongs to one goroutine.
type Presence struct {
	roster roster
	ttl    time.Duration
	health func(context.Context) error
	now    func() time.Time

	mu     sync.Mutex // from deciding what to say until it has been said
	member Member
	due    time.Time // to say it again
	left   bool
}

// NewPresence says nothing yet. ttl, MinTTL to MaxTTL, is how long others take
// a process that died for alive; health, or nil, answers why this one cannot do
// its work, and ends with its context, after a sixth of ttl.
func NewPresence(r roster, m Member, ttl time.Duration, health func(context.Context) error, now func() time.Time) *Presence {
	if health == nil {
		health = func(context.Context) error { return nil }
	}
	m.Joined, m.Since = now(), now()
	return &Presence{roster: r, member: m, ttl: ttl, health: health, now: now}
}

// Step is the heartbeat: it says that the process is there when a third of ttl
// has passed, and how it is as soon as that has changed. Run it several times
// within ttl.
func (p *Presence) Step(ctx context.Context) (worked bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return false, nil
	}
	m, now := p.member, p.now()
	m.Ailing = ""
	if err := p.ask(ctx); err != nil {
		m.Ailing = err.Error()
	}
	changed := m.Ailing != p.member.Ailing
	if changed {
		m.Since = now
	}
	if !changed && now.Before(p.due) {
		return false, nil
	}
	if err := p.roster.Join(ctx, m, p.ttl); err != nil {
		return false, fmt.Errorf("member %s: %w", m.Name, err)
	}
	p.member, p.due = m, now.Add(p.ttl/3)
	return changed, nil
}

// ask bounds how long a process may think about its health: one that lives must
// not be taken for dead because something that it needs does not answer.
func (p *Presence) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.ttl/6)
	defer cancel()
	return p.health(ctx)
}

// Leave takes the process off the list, for good: no Step puts it back.
func (p *Presence) Leave(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	if err := p.roster.Leave(ctx, p.member.Name); err != nil {
		return fmt.Errorf("member %s: %w", p.member.Name, err)
	}
	return nil
}
