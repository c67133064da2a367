package redisstock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/internal/stock"
)

// minVersion is the first Redis that does not hand scripts on to replicas and
// the append-only file, on which the fence rests.
const minVersion = 7

// checkServers asks every server that answers what it keeps, and refuses one
// that evicts keys, has no append-only file or is too old. What it reads is in
// INFO, since CONFIG is often forbidden.
func (l *Ledger) checkServers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*l.o.Timeout)
	defer cancel()
	answered := 0
	var last error
	nodes := l.client.Nodes()
	for _, addr := range slices.Sorted(maps.Keys(nodes)) {
		node := nodes[addr]
		info, err := node.Do(ctx, node.B().Info().Section("server", "memory", "persistence").Build()).ToString()
		if err != nil {
			last = fmt.Errorf("redis at %s: %w", addr, err)
			l.o.Log.Warn("a redis server does not answer; it is not checked", slog.String("server", addr), slog.Any("error", err))
			continue
		}
		answered++
		if err := checkServer(info); err != nil {
			return fmt.Errorf("%w: redis at %s: %w", stock.ErrInvalid, addr, err)
		}
	}
	if answered == 0 {
		return fmt.Errorf("%w: no redis server answered: %w", stock.ErrNotReady, last)
	}
	return nil
}

// checkServer reads an INFO and answers what to change.
func checkServer(info string) error {
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	major, _, _ := strings.Cut(fields["redis_version"], ".")
	if n, err := strconv.Atoi(major); err != nil || n < minVersion {
		return fmt.Errorf("version %s: %d.0 or later is needed", fields["redis_version"], minVersion)
	}
	if policy := fields["maxmemory_policy"]; policy != "noeviction" {
		return fmt.Errorf("it drops keys when memory is short: set \"maxmemory-policy noeviction\" (it is %q)", policy)
	}
	if fields["aof_enabled"] != "1" {
		return errors.New(`it forgets everything when it restarts: set "appendonly yes"`)
	}
	return nil
}
