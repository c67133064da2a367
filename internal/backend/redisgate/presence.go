package redisgate

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"sluice/internal/gate/waiting"
)

//go:embed lua/report.lua
var reportText string

var reportScript = rueidis.NewLuaScript(reportText)

const (
	// windowsFor is how long a window is kept after its last See; a window has to
	// be shorter.
	windowsFor = time.Hour
	// windowsBack is which window a See forgets: not the one before the last yet,
	// of which a process whose clock is behind may still speak.
	windowsBack = 3
	// reportsFor is how long a process may be silent before its report is dropped,
	// by Redis' clock.
	reportsFor = 2 * time.Hour
	// bitsAtOnce is how many numbers one command notes or reads.
	bitsAtOnce = 256
)

// Presence is a waiting.Presence on Redis: a bitmap for each window, 250 kB in a
// full room and four of them at most, and a hash of reports. Windows are to be shorter than
// an hour. A process that has reported nothing for two hours is dropped.
type Presence struct{ redis *redis }

var _ waiting.Presence = (*Presence)(nil)

func windowKey(activity string, window int64) string {
	return roomTag(activity) + "w:" + number(window)
}

// See implements waiting.Presence. Numbers that no room can have are passed over.
func (p *Presence) See(ctx context.Context, activity string, window int64, numbers []int) error {
	b, key := p.redis.client.B(), windowKey(activity, window)
	var commands []rueidis.Completed
	var args []string
	flush := func() {
		if len(args) > 0 {
			commands = append(commands, b.Arbitrary("BITFIELD").Keys(key).Args(args...).Build())
		}
		args = nil
	}
	for _, n := range numbers {
		if n < 0 || n >= waiting.MaxJoined {
			continue
		}
		if args = append(args, "SET", "u1", strconv.Itoa(n), "1"); len(args) == 4*bitsAtOnce {
			flush()
		}
	}
	flush()
	if len(commands) == 0 {
		return nil
	}
	commands = append(commands, b.Pexpire().Key(key).Milliseconds(windowsFor.Milliseconds()).Build(),
		b.Unlink().Key(windowKey(activity, window-windowsBack)).Build())
	if _, err := p.redis.doAll(ctx, commands); err != nil {
		return fmt.Errorf("presence in the room of %s: %w", activity, err)
	}
	return nil
}

// Seen implements waiting.Presence.
func (p *Presence) Seen(ctx context.Context, activity string, window int64, numbers []int) ([]bool, error) {
	b := p.redis.client.B()
	var commands []rueidis.Completed
	var asked []int // positions in numbers, in the order of the replies
	for i, n := range numbers {
		if n >= 0 && n < waiting.MaxJoined {
			asked = append(asked, i)
		}
	}
	for from := 0; from < len(asked); from += bitsAtOnce {
		var args []string
		for _, i := range asked[from:min(from+bitsAtOnce, len(asked))] {
			args = append(args, "GET", "u1", strconv.Itoa(numbers[i]))
		}
		for _, w := range []int64{window, window - 1} {
			commands = append(commands, b.Arbitrary("BITFIELD_RO").Keys(windowKey(activity, w)).Args(args...).Build())
		}
	}
	there := make([]bool, len(numbers))
	if len(commands) == 0 {
		return there, nil
	}
	replies, err := p.redis.doAll(ctx, commands)
	for c := 0; c < len(replies) && err == nil; c++ {
		var seen []int64
		from := c / 2 * bitsAtOnce
		if seen, err = replies[c].AsIntSlice(); err == nil && len(seen) != min(bitsAtOnce, len(asked)-from) {
			err = fmt.Errorf("a reply of %d bits", len(seen))
		}
		for i := 0; i < len(seen) && err == nil; i++ {
			there[asked[from+i]] = there[asked[from+i]] || seen[i] == 1
		}
	}
	if err != nil {
		return nil, fmt.Errorf("presence in the room of %s: %w", activity, err)
	}
	return there, nil
}

// Report implements waiting.Presence.
func (p *Presence) Report(ctx context.Context, activity, process string, r waiting.Report) error {
	text, err := json.Marshal(r)
	if err == nil {
		tag := roomTag(activity)
		_, err = p.redis.run(ctx, reportScript, []string{tag + "r", tag + "t"}, []string{process, string(text), number(reportsFor.Milliseconds())})
	}
	if err != nil {
		return fmt.Errorf("report of the room of %s: %w", activity, err)
	}
	return nil
}

// Reports implements waiting.Presence.
func (p *Presence) Reports(ctx context.Context, activity string) (map[string]waiting.Report, error) {
	texts, err := p.redis.do(ctx, p.redis.client.B().Hgetall().Key(roomTag(activity)+"r").Build()).AsStrMap()
	reports := make(map[string]waiting.Report, len(texts))
	for process, text := range texts {
		var r waiting.Report
		err = errors.Join(err, json.Unmarshal([]byte(text), &r))
		reports[process] = r
	}
	if err != nil {
		return nil, fmt.Errorf("reports of the room of %s: %w", activity, err)
	}
	return reports, nil
}
