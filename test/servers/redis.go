package servers

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// Redis starts a redis-server with an append-only file (synced every second
// unless Config says otherwise), no snapshots and no eviction. It also listens
// on the unix socket Dir/redis.sock.
func Redis(t TB, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	return Start(t, Program{
		Name: "redis",
		Path: Find(t, "redis-server"),
		Args: func(addr, dir string) ([]string, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			args := []string{"--bind", host, "--port", port, "--dir", dir,
				"--unixsocket", filepath.Join(dir, "redis.sock"),
				"--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
				"--maxmemory-policy", "noeviction", "--daemonize", "no"}
			for _, line := range o.config {
				name, value, _ := strings.Cut(line, " ")
				args = append(args, "--"+name, value)
			}
			return args, nil
		},
		Ready: redisReady,
	}, opts...)
}

// redisReady answers nil once PING is answered by PONG, which a server that is
// still loading its file does not do.
func redisReady(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && reply != "+PONG\r\n" {
		err = fmt.Errorf("PING answered %q", reply)
	}
	return err
}
