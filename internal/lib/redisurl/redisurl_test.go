package redisurl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/internal/lib/redisurl"
)

func TestParse(t *testing.T) {
	f := func(text string, want redisurl.URL, wantOthers string) {
		t.Helper()
		got, others, err := redisurl.Parse(text)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || others.Encode() != wantOthers {
			t.Errorf("%s: %+v, %q, %v; want %+v, %q", text, got, others.Encode(), err, want, wantOthers)
		}
	}
	f("redis://a:6379", redisurl.URL{Addrs: []string{"a:6379"}}, "")
	f("redis://a:1/?cluster=false", redisurl.URL{Addrs: []string{"a:1"}}, "")
	f("redis://a:6379,b:6380?cluster=true&x=1&y=2", redisurl.URL{Addrs: []string{"a:6379", "b:6380"}, Cluster: true}, "x=1&y=2")
	f("rediss://[::1]:26379/3?sentinel=mymaster",
		redisurl.URL{Addrs: []string{"[::1]:26379"}, Sentinel: "mymaster", TLS: true, Database: 3}, "")
}

func TestFaults(t *testing.T) {
	f := func(text, part string) {
		t.Helper()
		_, _, err := redisurl.Parse(text)
		if !errors.Is(err, redisurl.ErrInvalid) || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want something about %q", text, err, part)
		}
	}
	f("", "start with")
	f("http://user:secret@a:1", "start with")
	f("redis://user:secret@a", `"a" is not host:port`)
	f("redis://:secret@a:0", "not host:port")
	f("redis://a:1,b", `"b"`)
	f("redis://a:1,:2", "not host:port")
	f("redis://user:secret%zz@a:1", "escaped")
	f("redis://user:secret@a:1/x", "number of a database")
	f("redis://a:1/-1", "number of a database")
	f("redis://a:1?cluster=si", "cluster=si")
	f("redis://a:1?a;b", "malformed")
	f("redis://a:1/2?cluster=true", "neither sentinels nor databases")
	f("redis://a:1?cluster=true&sentinel=m", "neither sentinels nor databases")
}

func TestClient(t *testing.T) {
	f := func(text string, single, shuffled, encrypted bool, sentinel string) {
		t.Helper()
		u, _, err := redisurl.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		o := u.Client("name", time.Second)
		if o.ForceSingleClient != single || o.ShuffleInit != shuffled || (o.TLSConfig != nil) != encrypted || o.Sentinel.MasterSet != sentinel {
			t.Errorf("%s: single %v, shuffled %v, TLS %v, sentinel %q", text, o.ForceSingleClient, o.ShuffleInit, o.TLSConfig != nil, o.Sentinel.MasterSet)
		}
		if !o.DisableRetry || !o.DisableCache || o.ConnWriteTimeout != 2*time.Second || o.ClientName != "name" {
			t.Errorf("%s: %+v", text, o)
		}
		if (o.Username != "us%r" || o.Password != "s:c@t") == strings.Contains(text, "@") {
			t.Errorf("%s: comes in as %q with %q", text, o.Username, o.Password)
		}
		if sentinel != "" && (o.Sentinel.Password != o.Password || o.Sentinel.TLSConfig != o.TLSConfig) {
			t.Errorf("%s: sentinels are met as %+v", text, o.Sentinel)
		}
	}
	f("redis://a:1/2", true, false, false, "")
	f("rediss://us%25r:s%3Ac@t@a:1", true, false, true, "")
	f("redis://a:1,b:1?cluster=true", false, true, false, "")
	f("rediss://us%25r:s%3Ac%40t@a:1,b:1?sentinel=m", false, false, true, "m")
}
