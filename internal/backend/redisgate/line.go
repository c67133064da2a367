package redisgate

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"sluice/internal/gate/waiting"
)

var (
	//go:embed lua/room.lua
	roomText string
	//go:embed lua/open.lua
	openText string
	//go:embed lua/advance.lua
	advanceText string
	//go:embed lua/join.lua
	joinText string
	//go:embed lua/find.lua
	findText string

	roomScript    = rueidis.NewLuaScript(roomText + "return room()")
	openScript    = rueidis.NewLuaScript(roomText + openText)
	advanceScript = rueidis.NewLuaScript(roomText + advanceText)
	joinScript    = rueidis.NewLuaScript(joinText)
	findScript    = rueidis.NewLuaScript(findText)
)

// entriesPage is how many entries one call to Redis reads: it serves nobody
// else meanwhile, about a millisecond.
const entriesPage = 10_000

// Line is a waiting.Line on Redis. What it has answered survives a restart as
// far as the append-only file does: with appendfsync everysec, all but the last
// second. A room of which Redis has lost everything is waiting.ErrNoRoom.
type Line struct{ redis *redis }

var _ waiting.Line = (*Line)(nil)

// roomKeys are the keys of a room: what is known of it, its entries, its users.
func roomKeys(activity string) []string {
	tag := roomTag(activity)
	return []string{tag + "m", tag + "e", tag + "u"}
}

func roomTag(activity string) string { return "sluice:room:{" + escape(activity) + "}" }

// place is where a user stands in the hash of users: a field, and 16 bytes in
// it. Of SHA-256, so that it is as short for every user, and nobody can choose
// to be taken for another.
func place(user string) (field, digest string) {
	sum := sha256.Sum256([]byte(user))
	group := (uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])) >> (24 - groupBits)
	return string([]byte{byte(group >> 16), byte(group >> 8), byte(group)}), string(sum[16:])
}

// groupBits makes 131,072 fields of the hash of users, 15 users each in a full room.
const groupBits = 17

// Open implements waiting.Line.
func (l *Line) Open(ctx context.Context, activity string, seed waiting.Seed, at waiting.Millis) (waiting.Room, error) {
	return l.room(ctx, "open", openScript, activity, string(seed[:]), number(int64(at)))
}

// Room implements waiting.Line.
func (l *Line) Room(ctx context.Context, activity string) (waiting.Room, error) {
	return l.room(ctx, "read", roomScript, activity)
}

// Advance implements waiting.Line.
func (l *Line) Advance(ctx context.Context, activity string, revision int64, next waiting.Progress) (waiting.Room, error) {
	text, err := json.Marshal(next)
	if err != nil {
		return waiting.Room{}, fmt.Errorf("advance room of %s: %w", activity, err)
	}
	return l.room(ctx, "advance", advanceScript, activity, number(revision), string(text))
}

// room runs a script that answers a room.
func (l *Line) room(ctx context.Context, what string, s *rueidis.Lua, activity string, args ...string) (waiting.Room, error) {
	reply, err := l.run(ctx, s, activity, args...)
	if err == nil {
		var room waiting.Room
		if room, err = readRoom(activity, reply); err == nil {
			return room, nil
		}
	}
	return waiting.Room{}, fmt.Errorf("%s room of %s: %w", what, activity, err)
}

func readRoom(activity string, reply []rueidis.RedisMessage) (waiting.Room, error) {
	if len(reply) != 5 {
		return waiting.Room{}, fmt.Errorf("a reply of %d values, not 5", len(reply))
	}
	r := waiting.Room{Activity: activity}
	seed, err1 := reply[0].ToString()
	if err1 == nil && copy(r.Seed[:], seed) != len(r.Seed) {
		err1 = fmt.Errorf("a seed of %d bytes", len(seed))
	}
	opened, err2 := reply[1].AsInt64()
	revision, err3 := reply[2].AsInt64()
	joined, err4 := reply[4].AsInt64()
	r.OpenedAt, r.Revision, r.Joined = waiting.Millis(opened), revision, int(joined)
	return r, errors.Join(err1, err2, err3, err4, reply[3].DecodeJSON(&r.Progress))
}

// Join implements waiting.Line.
func (l *Line) Join(ctx context.Context, activity, user string, entry waiting.EntryID, instead, most int) (int, waiting.EntryID, error) {
	field, digest := place(user)
	reply, err := l.run(ctx, joinScript, activity, field, digest, string(entry[:]), strconv.Itoa(instead), strconv.Itoa(min(most, waiting.MaxJoined)))
	n, given, err := readPlace(reply, err)
	if err != nil {
		return 0, waiting.EntryID{}, fmt.Errorf("join the room of %s: %w", activity, err)
	}
	return n, given, nil
}

// Find implements waiting.Line. Where there is no room, the error is
// waiting.ErrNoRoom as well.
func (l *Line) Find(ctx context.Context, activity, user string) (int, waiting.EntryID, error) {
	field, digest := place(user)
	reply, err := l.run(ctx, findScript, activity, field, digest)
	if errors.Is(err, waiting.ErrNoRoom) {
		err = fmt.Errorf("%w: %w", waiting.ErrNotWaiting, err)
	}
	n, entry, err := readPlace(reply, err)
	if err != nil {
		return 0, waiting.EntryID{}, fmt.Errorf("find in the room of %s: %w", activity, err)
	}
	return n, entry, nil
}

func readPlace(reply []rueidis.RedisMessage, err error) (n int, entry waiting.EntryID, _ error) {
	if err != nil {
		return 0, entry, err
	}
	if len(reply) != 2 {
		return 0, entry, fmt.Errorf("a reply of %d values, not 2", len(reply))
	}
	number, err1 := reply[0].ToInt64()
	entry, err2 := readEntry(reply[1])
	return int(number), entry, errors.Join(err1, err2)
}

// Entries implements waiting.Line. Entries are only ever added, so several calls
// to Redis see the same. Of no room there are none.
func (l *Line) Entries(ctx context.Context, activity string, from, limit int) ([]waiting.EntryID, error) {
	from, limit = max(from, 0), min(limit, waiting.MaxJoined)
	key := roomKeys(activity)[1]
	var all []waiting.EntryID
	for len(all) < limit {
		start := from + len(all)
		n := min(limit-len(all), entriesPage)
		page, err := l.redis.do(ctx, l.redis.client.B().Lrange().Key(key).Start(int64(start)).Stop(int64(start+n-1)).Build()).ToArray()
		for i := 0; i < len(page) && err == nil; i++ {
			var e waiting.EntryID
			e, err = readEntry(page[i])
			all = append(all, e)
		}
		if err != nil {
			return nil, fmt.Errorf("entries of the room of %s: %w", activity, err)
		}
		if len(page) < n {
			break
		}
	}
	return all, nil
}

func readEntry(m rueidis.RedisMessage) (e waiting.EntryID, err error) {
	text, err := m.ToString()
	if err == nil && copy(e[:], text) != len(e) {
		err = fmt.Errorf("an entry of %d bytes", len(text))
	}
	return e, err
}

// Drop implements waiting.Line. Redis frees the memory in the background.
func (l *Line) Drop(ctx context.Context, activity string) error {
	if err := l.redis.do(ctx, l.redis.client.B().Unlink().Key(roomKeys(activity)...).Build()).Error(); err != nil {
		return fmt.Errorf("drop the room of %s: %w", activity, err)
	}
	return nil
}

// run calls a script of a room, whose reply begins with how it went.
func (l *Line) run(ctx context.Context, s *rueidis.Lua, activity string, args ...string) ([]rueidis.RedisMessage, error) {
	reply, err := l.redis.run(ctx, s, roomKeys(activity), args)
	if err != nil {
		return nil, err
	}
	if len(reply) == 0 {
		return nil, errors.New("an empty reply")
	}
	switch tag, err := reply[0].ToString(); {
	case err != nil:
		return nil, err
	case tag == "OK":
		return reply[1:], nil
	case tag == "NOROOM":
		return nil, waiting.ErrNoRoom
	case tag == "NOTWAITING":
		return nil, waiting.ErrNotWaiting
	case tag == "FULL":
		return nil, waiting.ErrFull
	case tag == "MOVED":
		return nil, waiting.ErrMoved
	default:
		return nil, fmt.Errorf("a reply %q", tag)
	}
}
