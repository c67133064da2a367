package redisstock

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"

	"sluice/internal/lib/redisurl"
	"sluice/internal/stock"
)

// Config is a URL taken apart: where the Redis is, as redisurl says, and
//
//	redis://a:6379,b:6379?cluster=true&buckets=16&answer=held
//
// buckets is 1..256, default 1. answer=held lets Reserve wait until the
// reservation is in the store; by default it answers pending.
type Config struct {
	redisurl.URL
	Buckets uint16
	Held    bool
}

// ParseURL reads a URL and names the first part of it that is not understood.
// Its error is stock.ErrInvalid and does not contain the password.
func ParseURL(text string) (Config, error) {
	c := Config{Buckets: 1}
	where, options, err := redisurl.Parse(text)
	if err != nil {
		return Config{}, fmt.Errorf("%w: stock URL: %w", stock.ErrInvalid, err)
	}
	c.URL = where
	for name, values := range options {
		if err := c.set(name, values[0]); err != nil {
			return Config{}, fmt.Errorf("%w: stock URL: %w", stock.ErrInvalid, err)
		}
	}
	return c, nil
}

func (c *Config) set(name, value string) error {
	switch name {
	case "buckets":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n < 1 || n > stock.MaxBuckets {
			return fmt.Errorf("buckets=%s: 1..%d are possible", value, stock.MaxBuckets)
		}
		c.Buckets = uint16(n)
	case "answer":
		if value != "held" && value != "pending" {
			return fmt.Errorf("answer=%s: pending and held are possible", value)
		}
		c.Held = value == "held"
	default:
		return fmt.Errorf("no option %q", name)
	}
	return nil
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}
