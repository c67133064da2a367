package storm

import (
	"math"
	"net/netip"
	"time"
)

// With --bots, --queue, --tickets or --challenge users act each for themselves,
// instead of sharing a schedule: people, who read, think and make mistakes, and
// bots, which do not. profile is which of the two a user is.
type profile uint8

const (
	person profile = iota
	bot
	profiles
)

var profileNames = [profiles]string{"people", "bots"}

// Manners of both.
const (
	botEvery        = 200 * time.Millisecond // between two requests of one account, always the same
	botsPerAddress  = 64                     // accounts
	thinkMedian     = 2 * time.Second        // of a person, between two steps
	thinkSpread     = 0.6                    // standard deviation of the logarithm
	reactMedian     = 500 * time.Millisecond // of a person who waits for the clock and sees it strike
	solveLeast      = 2 * time.Second        // a person takes for a challenge
	solveMost       = 6 * time.Second
	solveFloor      = 400 * time.Millisecond // however short the storm is
	mistaken        = 8.0                    // percent of a person's answers to challenges
	comeLater       = 40.0                   // percent of people who come after the opening, during a quarter of the rush
	usualRush       = time.Minute            // a rush of which nobody's time is shortened
	shortest        = 0.05                   // and how much it is at most
	leadLeast       = 3 * time.Second        // from the announcement to the opening
	leadMost        = time.Minute
	leadOfDuration  = 4 // a quarter of the rush
	calledTimeLeast = 10 * time.Second
)

// cast is who acts in a storm.
type cast struct {
	bots  int           // users 0..bots-1
	users int           // all
	every time.Duration // of a bot
	pace  float64       // of people's thoughts: 1 is usual, less is hurried, so that a short storm has as many steps
	dice  dice
}

func newCast(o Options) cast {
	c := cast{bots: int(math.Round(float64(o.Users) * o.Bots / 100)), users: o.Users, dice: dice(o.Seed)}
	// A storm of many bots must not offer more than was asked for.
	c.every = max(botEvery, time.Duration(float64(c.bots)/float64(o.Rate)*float64(time.Second)))
	c.pace = max(min(o.Duration.Seconds()/usualRush.Seconds(), 1), shortest)
	return c
}

// lead is how long before its opening a sale is announced to people and bots.
func lead(duration time.Duration) time.Duration {
	return min(max(duration/leadOfDuration, leadLeast), leadMost)
}

func (c cast) of(user int) profile {
	if user < c.bots {
		return bot
	}
	return person
}

func (c cast) count(p profile) int {
	if p == bot {
		return c.bots
	}
	return c.users - c.bots
}

// address is where a user comes from. People have one each; bots share a few.
// All are of the loopback network, 127.0.0.0/8, which belongs to this machine.
func (c cast) address(user int) netip.Addr {
	n, first := user-c.bots, 127<<24|16<<16 // 127.16.0.0: room for 7 million
	if c.of(user) == bot {
		n, first = user/botsPerAddress, 127<<24|128<<16
	}
	at := uint32(first + n + 1)
	return netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)})
}

// headers by which a program says what it is.
type manner struct{ agent, language string }

var browsers = []string{
	"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0",
}

var languages = []string{"zh-CN,zh;q=0.9,en;q=0.6", "en-GB,en;q=0.9", "de-DE,de;q=0.9,en;q=0.7", "fr-FR,fr;q=0.9"}

func (c cast) manner(user int) manner {
	if c.of(user) == bot {
		return manner{agent: "Go-http-client/1.1"}
	}
	n := c.dice.bits(chooseManner, uint64(user))
	return manner{browsers[n%uint64(len(browsers))], languages[n>>32%uint64(len(languages))]}
}

// arrival is when a user comes, after the announcement of a sale that opens lead
// later and whose rush lasts so long. Bots are there at once.
func (c cast) arrival(user int, lead, rush time.Duration) time.Duration {
	u := c.dice.unit(chooseArrival, uint64(user))
	switch {
	case c.of(user) == bot:
		return time.Duration(u * float64(c.every))
	case c.dice.hit(chooseLater, uint64(user), comeLater):
		return lead + time.Duration(u*float64(rush)/4)
	}
	return time.Duration(u * float64(lead))
}

// think is a person's time between two steps: log-normal, as times of people to
// decide and to type are. n numbers the steps of all.
func (c cast) think(n uint64) time.Duration { return time.Duration(c.pace * c.around(thinkMedian, n)) }

// react is a person's time to see that something has changed, and to press. Nobody
// is quicker because the storm is short.
func (c cast) react(n uint64) time.Duration { return time.Duration(c.around(reactMedian, n)) }

func (c cast) around(median time.Duration, n uint64) (ns float64) {
	z := normal(c.dice.unit(chooseThink, 2*n), c.dice.unit(chooseThink, 2*n+1))
	return float64(median) * math.Exp(thinkSpread*z)
}

// solving is a person's time for a challenge.
func (c cast) solving(n uint64) time.Duration {
	t := float64(solveLeast) + c.dice.unit(chooseSolving, n)*float64(solveMost-solveLeast)
	return max(time.Duration(c.pace*t), solveFloor)
}

// normal makes of two uniform numbers in [0, 1) a standard normal one (Box and
// Muller, 1958).
func normal(u, v float64) float64 {
	return math.Sqrt(-2*math.Log(1-u)) * math.Cos(2*math.Pi*v)
}
