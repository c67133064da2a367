package linetest

import (
	"context"
	"slices"
	"sync"

	"sluice/internal/gate/waiting"
)

// Local is a waiting.Line in memory. The zero value is empty.
type Local struct {
	mu    sync.Mutex
	rooms map[string]*local
}

type local struct {
	room    waiting.Room
	entries []waiting.EntryID
	users   map[string]int
}

var _ waiting.Line = (*Local)(nil)

func (l *local) read() waiting.Room {
	r := l.room
	r.Joined = len(l.entries)
	r.Progress.Steps, r.Progress.Digest = slices.Clone(r.Progress.Steps), slices.Clone(r.Progress.Digest)
	return r
}

// Open implements waiting.Line.
func (l *Local) Open(_ context.Context, activity string, seed waiting.Seed, at waiting.Millis) (waiting.Room, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rooms == nil {
		l.rooms = map[string]*local{}
	}
	if l.rooms[activity] == nil {
		l.rooms[activity] = &local{room: waiting.Room{Activity: activity, Seed: seed, OpenedAt: at}, users: map[string]int{}}
	}
	return l.rooms[activity].read(), nil
}

// Room implements waiting.Line.
func (l *Local) Room(_ context.Context, activity string) (waiting.Room, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rooms[activity]; r != nil {
		return r.read(), nil
	}
	return waiting.Room{}, waiting.ErrNoRoom
}

// Join implements waiting.Line.
func (l *Local) Join(ctx context.Context, activity, user string, entry waiting.EntryID, instead, most int) (int, waiting.EntryID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[activity]
	if r == nil || ctx.Err() != nil {
		return 0, waiting.EntryID{}, firstOf(ctx.Err(), waiting.ErrNoRoom)
	}
	if n, has := r.users[user]; has && n != instead {
		return n, r.entries[n], nil
	}
	if len(r.entries) >= most {
		return 0, waiting.EntryID{}, waiting.ErrFull
	}
	r.entries = append(r.entries, entry)
	r.users[user] = len(r.entries) - 1
	return len(r.entries) - 1, entry, nil
}

// Find implements waiting.Line.
func (l *Local) Find(_ context.Context, activity, user string) (int, waiting.EntryID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rooms[activity]; r != nil {
		if n, has := r.users[user]; has {
			return n, r.entries[n], nil
		}
	}
	return 0, waiting.EntryID{}, waiting.ErrNotWaiting
}

// Advance implements waiting.Line.
func (l *Local) Advance(ctx context.Context, activity string, revision int64, next waiting.Progress) (waiting.Room, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[activity]
	switch {
	case r == nil || ctx.Err() != nil:
		return waiting.Room{}, firstOf(ctx.Err(), waiting.ErrNoRoom)
	case r.room.Revision != revision:
		return waiting.Room{}, waiting.ErrMoved
	}
	next.Steps, next.Digest = slices.Clone(next.Steps), slices.Clone(next.Digest)
	r.room.Revision, r.room.Progress = revision+1, next
	return r.read(), nil
}

// Entries implements waiting.Line.
func (l *Local) Entries(_ context.Context, activity string, from, limit int) ([]waiting.EntryID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[activity]
	if r == nil || from >= len(r.entries) {
		return nil, nil
	}
	return slices.Clone(r.entries[from:min(len(r.entries), from+limit)]), nil
}

// Drop implements waiting.Line.
func (l *Local) Drop(_ context.Context, activity string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rooms, activity)
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
