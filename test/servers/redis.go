package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	redisConf   = "redis.conf"
	redisWithin = 5 * time.Second // for one administrative command
)

// redisFrame is the configuration but for a server's place and the test's own
// lines, of which the last one of a name counts. A full resynchronisation
// starts at once: nothing is gained by waiting for a second replica.
const redisFrame = `bind 127.0.0.1
port %s
dir %q
unixsocket %q
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
repl-diskless-sync-delay 0
%s
`

// Redis starts a redis-server with an append-only file (synced every second
// unless Config says otherwise), no snapshots and no eviction. It also listens
// on the unix socket Dir/redis.sock. A Config line is one of redis.conf:
// Config("appendfsync always").
func Redis(t TB, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	return Start(t, Program{
		Name: "redis",
		Path: Find(t, "redis-server"),
		Keep: []string{redisConf, nodesConf},
		Args: func(addr, dir string) ([]string, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			// A file and not arguments, so that CONFIG REWRITE can note whom a
			// server follows, which then survives its restart.
			text := fmt.Sprintf(redisFrame, port, dir, filepath.Join(dir, "redis.sock"), strings.Join(o.config, "\n"))
			file := filepath.Join(dir, redisConf)
			return []string{file}, os.WriteFile(file, []byte(text), 0o600)
		},
		Ready: redisReady,
	}, opts...)
}

// redisReady answers nil once PING is answered by PONG, which a server that is
// still loading its file does not do.
func redisReady(ctx context.Context, addr string) error {
	reply, err := exchange(ctx, addr, []string{"PING"})
	if err == nil && reply != "PONG" {
		err = fmt.Errorf("PING answered %q", reply)
	}
	return err
}

// Do sends one command to a Redis server, on a connection of its own, within
// 5 s. The reply is a string, an int64, nil or a []any of them; a reply that
// is an error is the error. It is for setting scenes, such as Do(s, "FLUSHALL"),
// not for load.
func Do(s *Server, command ...string) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), redisWithin)
	defer cancel()
	reply, err := exchange(ctx, s.Addr, command)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %s: %w", s.Name, s.Addr, strings.Join(command, " "), err)
	}
	return reply, nil
}

// each is Do for several commands whose replies do not matter.
func each(s *Server, commands ...string) error {
	for _, c := range commands {
		if _, err := Do(s, strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

// replication answers the fields of INFO replication.
func replication(s *Server) (map[string]string, error) {
	reply, err := Do(s, "INFO", "replication")
	if err != nil {
		return nil, err
	}
	return fields(reply), nil
}

// saved answers nil if a server is not rewriting its append-only file, as it
// does after a full resynchronisation: before, its disk has the old data.
func saved(s *Server) error {
	reply, err := Do(s, "INFO", "persistence")
	if err != nil {
		return err
	}
	if info := fields(reply); info["aof_rewrite_in_progress"] != "0" || info["aof_rewrite_scheduled"] != "0" {
		return fmt.Errorf("%s at %s is rewriting its file", s.Name, s.Addr)
	}
	return nil
}

// fields reads the lines "name:value" of an INFO.
func fields(info any) map[string]string {
	text, _ := info.(string)
	found := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			found[name] = value
		}
	}
	return found
}

// within asks again until the answer is nil, up to the time a start may take.
func within(ask func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return poll(ctx, nil, func(context.Context) error { return ask() })
}
