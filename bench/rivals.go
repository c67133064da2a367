package main

import (
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/test/servers"
)

var (
	//go:embed rival/purchase.lua
	purchaseLua string
	//go:embed rival/reserve.lua
	reserveLua string
)

// constant is nginx giving the same reply to everything: what a refusal costs
// when nothing at all is decided.
func constant(t servers.TB, r reply) (*subject, error) {
	if strings.ContainsAny(string(r.body), "$") {
		return nil, fmt.Errorf("nginx would take part of %q for a variable", r.body)
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var headers []string
	for name, values := range r.header {
		// nginx writes these itself.
		if !slices.Contains([]string{"Server", "Date", "Connection", "Content-Type", "Content-Length"}, name) {
			headers = append(headers, fmt.Sprintf("add_header %s '%s' always;", name, quote.Replace(values[0])))
		}
	}
	slices.Sort(headers)
	conf := fmt.Sprintf(`server {
		listen {{addr}} backlog=4096;
		server_tokens off;
		location / { default_type %s; %s return %d '%s'; }
	}`, r.header.Get("Content-Type"), strings.Join(headers, " "), r.status, quote.Replace(string(r.body)))
	s := servers.Nginx(t, conf, servers.OnCore(serverCore))
	return &subject{name: "nginx `return " + strconv.Itoa(r.status) + "`", addr: s.Addr, servers: []*servers.Server{s}}, nil
}

// chain is nginx with Lua in front of a Redis script: the decision as it is
// commonly built, on one core together.
type chain struct {
	subject
	redis *servers.Server
}

func startChain(t servers.TB, secret []byte, fsync string) (*chain, error) {
	redis := servers.Redis(t, servers.OnCore(serverCore), servers.Config("appendfsync "+fsync),
		servers.Config("auto-aof-rewrite-percentage 0")) // no rewrite in the middle of a measurement
	script, err := redisDo(redis.Addr, "SCRIPT", "LOAD", reserveLua)
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "purchase.lua"), []byte(purchaseLua), 0o644); err != nil {
		return nil, err
	}
	nginx := servers.Nginx(t, fmt.Sprintf(`lua_package_path '%s/?.lua;;';
	init_by_lua_block { require("purchase").configure({ secret = %s, script = "%s", socket = "unix:%s" }) }
	server {
		listen {{addr}} backlog=4096;
		server_tokens off;
		location ~ ^/v1/activities/(?<activity>[^/]+)/purchases$ { content_by_lua_block { require("purchase").serve() } }
		location / { return 204; }
	}`, dir, luaBytes(secret), script, filepath.Join(redis.Dir, "redis.sock")), servers.OnCore(serverCore))
	return &chain{
		subject: subject{name: "nginx-lua + Redis script", addr: nginx.Addr, servers: []*servers.Server{nginx, redis}},
		redis:   redis,
	}, nil
}

// sell opens an activity with units of bench-sku, of which held are taken.
func (c *chain) sell(activity string, units, held, perUser int) error {
	now := time.Now().Unix()
	_, err := redisDo(c.redis.Addr, "HSET", "{"+activity+"}bench-sku",
		"opens_at", strconv.FormatInt(now-60, 10), "closes_at", strconv.FormatInt(now+86400, 10),
		"per_user", strconv.Itoa(perUser), "free", strconv.Itoa(units-held), "held", strconv.Itoa(held))
	return err
}

// queued is how many accepted purchases of an activity wait for a worker.
func (c *chain) queued(activity string) (int, error) {
	n, err := redisDo(c.redis.Addr, "LLEN", "{"+activity+"}bench-sku:queue")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(n)
}

// luaBytes writes bytes as a Lua string, whatever they are.
func luaBytes(b []byte) string {
	var s strings.Builder
	s.WriteByte('"')
	for _, c := range b {
		fmt.Fprintf(&s, `\%03d`, c)
	}
	s.WriteByte('"')
	return s.String()
}

// purchases is the path of the purchases of an activity.
func purchases(activity string) string { return "/v1/activities/" + activity + "/purchases" }

// expectCode makes sure a subject decides before and after it is measured.
func expectCode(r reply, code, want string) error {
	if code != want {
		return fmt.Errorf("answered %d %q, want %q: %s", r.status, code, want, r.body)
	}
	if (r.status == http.StatusAccepted) != (code == "held") {
		return fmt.Errorf("answered %q with status %d", code, r.status)
	}
	return nil
}
