package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
)

// etcdPace is twice as fast as etcd's own: a leader
// that is gone is replaced within a second, and the shortest lease is one
// second instead of two. A busy machine stands it.
var etcdPace = []string{"--heartbeat-interval", "50", "--election-timeout", "500"}

// Etcd starts an etcd of one member. Config appends an argument:
// Config("--max-txn-ops=64").
func Etcd(t TB, opts ...Option) *Server {
	t.Helper()
	return etcdMembers(t, 1, opts).Members[0]
}

// EtcdCluster is an etcd of several members, of which a majority decides.
type EtcdCluster struct {
	Members []*Server
}

// EtcdOfThree starts an etcd of three members and waits until all follow a
// leader: one of them may be away.
func EtcdOfThree(t TB, opts ...Option) *EtcdCluster {
	t.Helper()
	return etcdMembers(t, 3, opts)
}

func etcdMembers(t TB, n int, opts []Option) *EtcdCluster {
	t.Helper()
	path, o := Find(t, "etcd"), gather(opts)
	peers, initial := make([]string, n), make([]string, n)
	for i := range n {
		addr, err := freeAddr()
		if err != nil {
			t.Fatalf("servers: %v", err)
		}
		peers[i] = "http://" + addr
		initial[i] = fmt.Sprintf("m%d=%s", i, peers[i])
	}
	c := &EtcdCluster{}
	for i := range n {
		c.Members = append(c.Members, Start(t, Program{
			Name: fmt.Sprintf("etcd-%d", i),
			Path: path,
			Args: func(addr, dir string) ([]string, error) {
				at := "http://" + addr
				return slices.Concat([]string{
					"--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, "data"),
					"--listen-client-urls", at, "--advertise-client-urls", at,
					"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
					"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
				}, etcdPace, o.config), nil
			},
			// A member of several answers nothing until there is a majority, so it
			// is enough that it listens: all are asked below.
			Ready: func(ctx context.Context, addr string) error {
				if n > 1 {
					return dialable(ctx, addr)
				}
				return etcdHealthy(ctx, addr)
			},
		}, opts...))
	}
	if err := c.Await(); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return c
}

// Addrs are the addresses of all members.
func (c *EtcdCluster) Addrs() (list []string) {
	for _, m := range c.Members {
		list = append(list, m.Addr)
	}
	return list
}

// Await waits until every member that is neither paused nor ended answers by
// what a majority has agreed on.
func (c *EtcdCluster) Await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return poll(ctx, nil, func(ctx context.Context) error {
		for _, m := range c.Members {
			if m.mute() {
				continue
			}
			if err := etcdHealthy(ctx, m.Addr); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
		return nil
	})
}

// Leader is the member that leads, as a member that runs says.
func (c *EtcdCluster) Leader() (*Server, error) {
	for _, m := range c.Members {
		if m.mute() {
			continue
		}
		var status struct {
			Header struct {
				MemberID string `json:"member_id"`
			}
			Leader string
		}
		ctx, cancel := context.WithTimeout(context.Background(), startWithin)
		err := etcdAsk(ctx, http.MethodPost, m.Addr+"/v3/maintenance/status", &status)
		cancel()
		if err != nil {
			return nil, err
		}
		if status.Leader == status.Header.MemberID {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no member that runs leads")
}

// etcdHealthy answers nil once a member has read through a majority.
func etcdHealthy(ctx context.Context, addr string) error {
	var answer struct{ Health string }
	if err := etcdAsk(ctx, http.MethodGet, addr+"/health", &answer); err != nil {
		return err
	}
	if answer.Health != "true" {
		return fmt.Errorf("health is %q", answer.Health)
	}
	return nil
}

func etcdAsk(ctx context.Context, method, at string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+at, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(answer)
}
