package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// nginxFrame is all of the configuration but the part a test is about. One
// worker, because a test or a measurement gives it one core.
const nginxFrame = `%s
daemon off;
worker_processes 1;
pid %[2]s/nginx.pid;
error_log stderr warn;
events { worker_connections 16384; }
http {
	access_log off;
	default_type application/octet-stream;
	tcp_nodelay on;
	keepalive_timeout 300s;
	keepalive_requests 1000000000;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	%[3]s
}
`

// Nginx starts nginx with conf inside its http block, where {{addr}} stands
// for the address to listen on and {{dir}} for the server's directory:
//
//	server { listen {{addr}}; location / { return 200; } }
//
// The Lua module is loaded if conf uses it, or else the test is skipped as for
// a missing program.
func Nginx(t TB, conf string, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	modules := ""
	if strings.Contains(conf, "_by_lua") {
		modules = luaModules(t)
	}
	if os.Getuid() == 0 {
		// The worker stays root, so that it may read a test's private directory.
		modules += "user root;\n"
	}
	return Start(t, Program{
		Name: "nginx",
		Path: Find(t, "nginx"),
		Args: func(addr, dir string) ([]string, error) {
			body := strings.NewReplacer("{{addr}}", addr, "{{dir}}", dir).
				Replace(strings.Join(append([]string{conf}, o.config...), "\n\t"))
			file := filepath.Join(dir, "nginx.conf")
			text := fmt.Sprintf(nginxFrame, modules, dir, body)
			return []string{"-p", dir, "-c", file, "-e", "stderr"}, os.WriteFile(file, []byte(text), 0o644)
		},
		Ready: dialable,
	}, opts...)
}

// dialable answers nil once somebody listens at addr.
func dialable(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// luaModules are the lines that load nginx's Lua module and the one it needs.
func luaModules(t TB) string {
	t.Helper()
	for _, dir := range []string{"/usr/lib/nginx/modules", "/usr/share/nginx/modules"} {
		lua := filepath.Join(dir, "ngx_http_lua_module.so")
		if _, err := os.Stat(lua); err == nil {
			return fmt.Sprintf("load_module %s;\nload_module %s;\n", filepath.Join(dir, "ndk_http_module.so"), lua)
		}
	}
	Missing(t, "libnginx-mod-http-lua")
	return ""
}
