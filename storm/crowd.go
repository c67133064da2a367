package storm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// status of a user: idle → busy → idle (refused) or holding (accepted);
// holding → idle with a new key (ended) or bought (paid).
type status uint32

const (
	idle    status = iota // will try when a slot comes round
	busy                  // one try is under way, or its outcome is not known yet
	holding               // has an acknowledged reservation
	bought                // paid, wants nothing more
)

// crowd is the users, kept small so that a million fit: four bytes of state
// each and one arena of tokens. A user keeps the key of a try until the
// reservation made with it has ended, as a shop's page does; the generation
// in the state counts those keys.
type crowd struct {
	states   []atomic.Uint32 // generation<<8 | status
	tokens   []byte          // one token after the other, all of one length
	tokenLen int
	stride   uint64 // coprime to the number of users: slot × stride visits all of them
	cursor   atomic.Uint64
	done     atomic.Int64 // users that bought
}

// probes bounds how many users are looked at to find an idle one for a slot.
const probes = 64

// newCrowd signs a token for each of n users, valid for ttl.
func newCrowd(n int, seed uint64, key []byte, now time.Time, ttl time.Duration) (*crowd, error) {
	c := &crowd{states: make([]atomic.Uint32, n), stride: strideOf(n, seed)}
	first, err := sign(key, userName(0), now, ttl)
	if err != nil {
		return nil, err
	}
	c.tokenLen = len(first)
	c.tokens = make([]byte, n*c.tokenLen)

	workers := runtime.GOMAXPROCS(0)
	faults := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for u := w; u < n && faults[w] == nil; u += workers {
				token, err := sign(key, userName(u), now, ttl)
				if err == nil && len(token) != c.tokenLen {
					err = errors.New("tokens differ in length")
				}
				faults[w] = err
				copy(c.token(u), token)
			}
		})
	}
	wg.Wait()
	return c, errors.Join(faults...)
}

// strideOf picks a step near the golden section of n that visits every user.
func strideOf(n int, seed uint64) uint64 {
	gcd := func(a, b uint64) uint64 {
		for b != 0 {
			a, b = b, a%b
		}
		return a
	}
	s := uint64(float64(n)*0.618) + seed%97 + 1
	for gcd(s, uint64(n)) != 1 {
		s++
	}
	return s
}

// userName is of one length for all users, and so are their tokens.
func userName(u int) string { return string(appendUser(nil, u)) }

func appendUser(b []byte, u int) []byte {
	const first = 10_000_000 // its leading 1 makes room for seven digits
	at := len(b)
	b = strconv.AppendUint(b, uint64(first+u), 10)
	b[at] = 'u'
	return b
}

// userOf reverses userName.
func userOf(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, "u")
	if !ok || len(digits) != 7 {
		return 0, false
	}
	u, err := strconv.Atoi(digits)
	return u, err == nil && u >= 0
}

func (c *crowd) token(u int) []byte { return c.tokens[u*c.tokenLen : (u+1)*c.tokenLen] }

// next claims an idle user for a try, or reports that it found none.
func (c *crowd) next() (u int, generation uint32, ok bool) {
	n := uint64(len(c.states))
	for range min(probes, len(c.states)) {
		u := int(c.cursor.Add(1) % n * c.stride % n)
		word := c.states[u].Load()
		if status(word&0xff) == idle && c.states[u].CompareAndSwap(word, word&^0xff|uint32(busy)) {
			return u, word >> 8, true
		}
	}
	return 0, 0, false
}

// claim claims one user for a try. If the user was not idle, the answer is what it
// was instead, and nothing is claimed.
func (c *crowd) claim(u int) (generation uint32, was status) {
	word := c.states[u].Load()
	if was = status(word & 0xff); was == idle && !c.states[u].CompareAndSwap(word, word&^0xff|uint32(busy)) {
		was = busy
	}
	return word >> 8, was
}

// refused gives a user back who was claimed with this generation. A user whose
// second click was accepted meanwhile stays as that made them.
func (c *crowd) refused(u int, generation uint32) {
	c.states[u].CompareAndSwap(generation<<8|uint32(busy), generation<<8|uint32(idle))
}

// accepted: the user has a receipt for a key, which counts unless there is a
// newer key already.
func (c *crowd) accepted(u int, generation uint32) {
	for {
		word := c.states[u].Load()
		if word>>8 > generation || c.states[u].CompareAndSwap(word, generation<<8|uint32(holding)) {
			return
		}
	}
}

// retry claims a user whose receipt was refused, to send the same key again.
func (c *crowd) retry(u int, generation uint32) bool {
	return c.states[u].CompareAndSwap(generation<<8|uint32(holding), generation<<8|uint32(busy))
}

// over lets a user whose receipt was refused try with a new key.
func (c *crowd) over(u int, generation uint32) {
	for _, from := range [...]status{holding, busy} {
		if c.states[u].CompareAndSwap(generation<<8|uint32(from), (generation+1)<<8|uint32(idle)) {
			return
		}
	}
}

// again lets a user whose reservation ended try with a new key.
func (c *crowd) again(u int, generation uint32) {
	c.states[u].CompareAndSwap(generation<<8|uint32(holding), (generation+1)<<8|uint32(idle))
}

// satisfied takes a user who paid out of the demand.
func (c *crowd) satisfied(u int, generation uint32) {
	if c.states[u].CompareAndSwap(generation<<8|uint32(holding), generation<<8|uint32(bought)) {
		c.done.Add(1)
	}
}

// generation of the user's newest key.
func (c *crowd) generation(u int) uint32 { return c.states[u].Load() >> 8 }

// demand counts the users who have no reservation and want one, and those who
// have one and may pay it.
func (c *crowd) demand() (asking, holders int) {
	for i := range c.states {
		switch status(c.states[i].Load() & 0xff) {
		case idle, busy:
			asking++
		case holding:
			holders++
		}
	}
	return asking, holders
}

func sign(key []byte, user string, now time.Time, ttl time.Duration) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "iat": now.Unix(), "exp": now.Add(ttl).Unix(),
	}).SignedString(key)
}

// readKey reads the server's token key, hex in <data>/secrets/jwt.hs256.
func readKey(data string) ([]byte, error) {
	path := filepath.Join(data, "secrets", "jwt.hs256")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key that signs users' tokens (is --data the server's data directory?): %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("%s is not a key in hexadecimal", path)
	}
	return key, nil
}
