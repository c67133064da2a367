package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// settings of the chain as a server.
type settings struct {
	data, redis, listen, ops, opsToken string
}

// tokenVariable names the environment variable with the ops API's token.
const tokenVariable = "SLUICE_OPS_TOKEN"

// serve runs the chain until ctx ends, or its process is killed.
func serve(ctx context.Context, s settings) error {
	if s.data == "" || s.redis == "" {
		return errors.New("-serve wants -data and -redis")
	}
	front, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	back, err := net.Listen("tcp", s.ops)
	if err != nil {
		return errors.Join(err, front.Close())
	}
	return serveOn(ctx, s, front, back)
}

func serveOn(ctx context.Context, s settings, front, back net.Listener) error {
	secret, err := tokenKey(s.data)
	if err != nil {
		return err
	}
	db, err := openSQL(s.data, "shop.db", schema)
	if err != nil {
		return err
	}
	defer db.Close()
	world, err := openSQL(s.data, "provider.db", tillSchema)
	if err != nil {
		return err
	}
	defer world.Close()
	redis, err := dialRedis(ctx, s.redis)
	if err != nil {
		return err
	}
	defer redis.Close()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := &chain{log: log, redis: redis, books: &books{db}, now: time.Now}
	desk := &shop{chain: c, till: &till{world, c.books.received}, secret: secret, opsToken: s.opsToken}
	var jobs sync.WaitGroup
	for range workers {
		jobs.Go(func() { repeat(ctx, log, "worker", 0, c.work) })
	}
	jobs.Go(func() { repeat(ctx, log, "timeouts", timeoutEvery, c.timeouts) })
	jobs.Go(func() { repeat(ctx, log, "callbacks", tellAfter, desk.till.repeat) })
	servers := []*http.Server{{Handler: desk.shopper()}, {Handler: desk.operator()}}
	jobs.Go(func() { _ = servers[0].Serve(front) }) // ends by Shutdown
	jobs.Go(func() { _ = servers[1].Serve(back) })
	<-ctx.Done()
	last, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	for _, server := range servers {
		err = errors.Join(err, server.Shutdown(last))
	}
	jobs.Wait()
	return err
}

// repeat does a step again and again, with a rest after each, and a longer one
// after a failure.
func repeat(ctx context.Context, log *slog.Logger, name string, rest time.Duration, step func(context.Context) error) {
	for ctx.Err() == nil {
		wait := rest
		if err := step(ctx); err != nil && ctx.Err() == nil {
			log.Error("job failed", "job", name, "err", err)
			wait = max(rest, retryPause)
		}
		if wait > 0 {
			pause(ctx, wait)
		}
	}
}

// tokenKey loads or creates the key that signs users' tokens, where the storm
// looks for it.
func tokenKey(data string) ([]byte, error) {
	path := filepath.Join(data, "secrets", "jwt.hs256")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		text = []byte(hex.EncodeToString(key))
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return hex.DecodeString(strings.TrimSpace(string(text)))
}
