// Package deploy is a fleet in containers, and the tests that keep it true: the
// file is read as Compose reads it, and what it tells each server is told to the
// real one.
package deploy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"

	"sluice/internal/app"
)

// service is what is looked at of one.
type service struct {
	name        string
	fields      map[string]any
	command     []string
	environment map[string]string
	depends     map[string]string // service → condition
	networks    map[string]string // network → fixed address or ""
	aliases     []string
}

// file is compose.yaml with the variables filled in.
type file struct {
	top      map[string]any
	services map[string]*service
}

var variable = regexp.MustCompile(`\$\{(\w+):\?[^}]*\}`)

// read fills each variable with its own name and "-value", or what values says.
func read(t *testing.T, values map[string]string) *file {
	t.Helper()
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text = variable.ReplaceAllFunc(text, func(m []byte) []byte {
		name := string(variable.FindSubmatch(m)[1])
		if v := values[name]; v != "" {
			return []byte(v)
		}
		return []byte(name + "-value")
	})
	if i := strings.IndexByte(string(text), '$'); i >= 0 {
		t.Fatalf("a variable that is not ${NAME:?why}: %.40s", text[i:])
	}
	f := &file{services: map[string]*service{}}
	if f.top, err = yaml.Parser().Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	for name, v := range table(f.top["services"]) {
		fields := table(v)
		s := &service{name: name, fields: fields, command: list(fields["command"]), environment: map[string]string{}, depends: map[string]string{}, networks: map[string]string{}}
		for key, value := range table(fields["environment"]) {
			s.environment[key] = fmt.Sprint(value)
		}
		for other, how := range table(fields["depends_on"]) {
			s.depends[other] = fmt.Sprint(table(how)["condition"])
		}
		for network, how := range table(fields["networks"]) {
			s.networks[network], _ = table(how)["ipv4_address"].(string)
			s.aliases = append(s.aliases, list(table(how)["aliases"])...)
		}
		f.services[name] = s
	}
	return f
}

func table(v any) map[string]any { m, _ := v.(map[string]any); return m }

func list(v any) (texts []string) {
	items, _ := v.([]any)
	for _, item := range items {
		texts = append(texts, fmt.Sprint(item))
	}
	return texts
}

// of are the services of an image, in order of their names.
func (f *file) of(image string) (all []*service) {
	for _, name := range f.names() {
		if s := f.services[name]; s.image() == image && s.fields["restart"] != "no" {
			all = append(all, s)
		}
	}
	return all
}

func (s *service) image() string {
	image, _ := s.fields["image"].(string)
	name, _, _ := strings.Cut(image, ":")
	return name[strings.LastIndexByte(name, '/')+1:]
}

func (f *file) names() (all []string) {
	for name := range f.services {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Every service is bounded, comes back, says how it is, and waits only for what
// can be waited for.
func TestServices(t *testing.T) {
	f := read(t, nil)
	if len(f.services) != 23 {
		t.Errorf("%d services", len(f.services))
	}
	for _, name := range f.names() {
		s := f.services[name]
		bad := func(format string, args ...any) { t.Helper(); t.Errorf(name+": "+format, args...) }
		once := s.fields["restart"] == "no"
		if !once && s.fields["restart"] != "unless-stopped" {
			bad("restart: %v", s.fields["restart"])
		}
		if !once && len(list(table(s.fields["healthcheck"])["test"])) < 2 {
			bad("no healthcheck")
		}
		// MariaDB's script takes these as what a test after them is to look at, and
		// fails where none follows.
		if test := list(table(s.fields["healthcheck"])["test"]); len(test) > 1 && strings.HasPrefix(test[len(test)-1], "--replication_") {
			bad("the healthcheck %v looks at nothing", test)
		}
		if s.fields["mem_limit"] == nil || s.fields["cpus"] == nil || !once && s.fields["logging"] == nil {
			bad("memory, processors or logs are not bounded")
		}
		if image, _ := s.fields["image"].(string); s.fields["build"] == nil && (!strings.Contains(image, ":") || strings.HasSuffix(image, ":latest")) {
			bad("image %q is not pinned", image)
		}
		for other, condition := range s.depends {
			o := f.services[other]
			if o == nil {
				bad("depends on %q, which is not there", other)
				continue
			}
			if want := map[bool]string{true: "service_completed_successfully", false: "service_healthy"}[o.fields["restart"] == "no"]; condition != want {
				bad("waits until %s is %s, want %s", other, condition, want)
			}
		}
		if len(s.networks) == 0 {
			bad("no network")
		}
		for _, port := range list(s.fields["ports"]) {
			if !strings.HasPrefix(port, "127.0.0.1:") && name != "nginx" {
				bad("port %s is open to everybody", port)
			}
		}
	}
	for name := range f.services { // nobody waits for himself
		var visit func(at string, path []string)
		visit = func(at string, path []string) {
			if slices.Contains(path, at) {
				t.Fatalf("a circle: %v", append(path, at))
			}
			for other := range f.services[at].depends {
				visit(other, append(path, at))
			}
		}
		visit(name, nil)
	}
}

// Volumes, files, networks and fixed addresses are there, and used once.
func TestPlaces(t *testing.T) {
	f := read(t, nil)
	declared, used := table(f.top["volumes"]), map[string][]string{}
	taken := map[string]string{}
	for _, name := range f.names() {
		s := f.services[name]
		for _, v := range list(s.fields["volumes"]) {
			source, rest, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				used[source] = append(used[source], name)
				if _, ok := declared[source]; !ok {
					t.Errorf("%s: volume %q is not declared", name, source)
				}
				continue
			}
			info, err := os.Stat(source)
			if err != nil || !strings.HasSuffix(rest, ":ro") {
				t.Errorf("%s: %s: %v", name, v, err)
			} else if strings.HasSuffix(source, ".sh") && info.Mode()&0o111 == 0 {
				t.Errorf("%s cannot be executed", source)
			}
		}
		for network, address := range s.networks {
			config := list(table(table(table(f.top["networks"])[network])["ipam"])["config"])
			if len(config) != 1 {
				t.Fatalf("%s: network %q is not declared", name, network)
			}
			if address == "" {
				continue
			}
			c := table(table(table(table(f.top["networks"])[network])["ipam"])["config"].([]any)[0])
			subnet, given := netip.MustParsePrefix(c["subnet"].(string)), netip.MustParsePrefix(c["ip_range"].(string))
			if at := netip.MustParseAddr(address); !subnet.Contains(at) || given.Contains(at) || taken[address] != "" {
				t.Errorf("%s: %s is not free in %s", name, address, network)
			}
			taken[address] = name
		}
	}
	for name := range declared {
		if n := len(used[name]); n == 0 || n > 1 && name != "secrets" {
			t.Errorf("volume %s is used by %v", name, used[name])
		}
	}
	nginx := f.services["nginx"]
	for _, host := range list(nginx.fields["extra_hosts"]) {
		name, address, _ := strings.Cut(host, ":")
		if taken[address] != name {
			t.Errorf("nginx takes %s for %s, which is %q's", address, name, taken[address])
		}
	}
}

// places are all addresses that the file speaks of, name:port.
var places = regexp.MustCompile(`([a-z][a-z0-9.-]*[a-z0-9]):(\d{2,5})\b`)

// Whoever is spoken of is there, on a network of the speaker's.
func TestNames(t *testing.T) {
	f := read(t, nil)
	at := map[string]*service{}
	for name, s := range f.services {
		at[name] = s
		for _, alias := range s.aliases {
			at[alias] = s
		}
	}
	spoken := 0
	for name, s := range f.services {
		texts := slices.Clone(s.command)
		for _, value := range s.environment {
			texts = append(texts, value)
		}
		if name == "nginx" {
			texts = append(texts, ours(t))
		}
		for _, m := range places.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
			spoken++
			o := at[m[1]]
			if o == nil {
				t.Errorf("%s speaks of %s, which is not there", name, m[0])
				continue
			}
			if !slices.ContainsFunc(slices.Collect(keys(s.networks)), func(n string) bool { _, both := o.networks[n]; return both }) {
				t.Errorf("%s cannot reach %s", name, m[1])
			}
		}
	}
	if spoken < 50 {
		t.Errorf("%d names were found, this test shows nothing", spoken)
	}
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// ours is the part of nginx's configuration that is the fleet's.
func ours(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("nginx/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\tupstream gateways {")
	rest, _, ended := strings.Cut(rest, "\n\n\t# That it runs")
	if !found || !ended {
		t.Fatal("nginx.conf has another form")
	}
	return "\tupstream gateways {" + rest
}

// The front is the one that the fleet's tests put under faults.
func TestFront(t *testing.T) {
	tested, err := os.ReadFile("../test/fleet/front.conf")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"{{gateways}}", "server gateway-1:8080 max_fails=0;\n\tserver gateway-2:8080 max_fails=0;",
		"\tlisten {{addr}};\n\tlisten {{public}};\n", "\tlisten 8080;\n").Replace(string(tested))
	want = want[strings.Index(want, "upstream gateways {"):]
	got := strings.TrimPrefix(strings.ReplaceAll(ours(t), "\n\t", "\n"), "\t")
	if got != strings.TrimSuffix(want, "\n") {
		t.Errorf("it is no longer test/fleet/front.conf; take over what has changed there:\n%s", want)
	}
}

// No word of the file is a secret, and setup makes all that it asks for.
func TestSecrets(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for n, line := range strings.Split(string(text), "\n") {
		if bare := variable.ReplaceAllString(line, ""); regexp.MustCompile(`(PASSWORD|TOKEN):\s*\S|//[^/@ ]*:[^@/ ]+@\w`).MatchString(bare) {
			t.Errorf("line %d: %s", n+1, line)
		}
	}
	dir := t.TempDir()
	script, err := os.ReadFile("setup")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "setup"), script, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func() error { return exec.Command(filepath.Join(dir, "setup")).Run() }
	if err := run(); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(dir, ".env")
	info, err := os.Stat(env)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	made, _ := os.ReadFile(env)
	values := map[string]string{}
	for line := range strings.Lines(string(made)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if !regexp.MustCompile(`^[0-9a-f]{48}$`).MatchString(value) || slices.Contains(slices.Collect(keys(values)), name) {
			t.Errorf("%s=%s", name, value)
		}
		values[name] = value
	}
	for _, m := range variable.FindAllStringSubmatch(string(text), -1) {
		if values[m[1]] == "" {
			t.Errorf("%s is in no .env", m[1])
		}
	}
	if err := run(); err == nil {
		t.Error("passwords that are in use were replaced")
	}
}

// Every process of ours accepts what it is told, and is told the same.
func TestConfigurations(t *testing.T) {
	f := read(t, nil)
	count := map[string]int{}
	for _, s := range f.of("sluice") {
		for name, value := range s.environment {
			t.Setenv(name, value)
		}
		c, err := app.Load("", nil)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		count[c.Role]++
		if nginx := f.services["nginx"].networks["front"]; !slices.Equal(c.Proxies, []string{nginx}) || c.Gateways != 2 {
			t.Errorf("%s believes %v of %s, of %d gateways", s.name, c.Proxies, nginx, c.Gateways)
		}
		if _, port, _ := net.SplitHostPort(c.Ops); !strings.Contains(fmt.Sprint(list(table(s.fields["healthcheck"])["test"])), ":"+port+"/readyz") {
			t.Errorf("%s: its health is not asked for at %s", s.name, c.Ops)
		}
	}
	if count["gateway"] != 2 || count["worker"] != 2 || count["console"] != 1 {
		t.Errorf("%v", count)
	}
}

// The image is built with the Go that go.mod asks for, from all that the program
// is made of, and its user owns what it writes.
func TestImage(t *testing.T) {
	docker, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)[1]
	for _, want := range []string{"FROM golang:" + string(version) + "-", "CGO_ENABLED=0", "USER 65532:65532"} {
		if !strings.Contains(string(docker), want) {
			t.Errorf("the Dockerfile lacks %q", want)
		}
	}
	ignore, err := os.ReadFile("Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "./cmd/sluice")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		own, ok := strings.CutPrefix(p, "sluice/")
		if top, _, _ := strings.Cut(own, "/"); ok && !strings.Contains(string(ignore), "\n!"+top+"\n") {
			t.Errorf("%s is not sent to the build", p)
		}
	}
}
