package servers

import (
	"context"
	"testing"
	"time"
)

func TestEtcdOfThree(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := EtcdOfThree(t)
	first, err := c.Leader()
	must(t, err)
	first.Kill()
	must(t, c.Await()) // the other two go on
	second, err := c.Leader()
	must(t, err)
	if second == first {
		t.Error("a member that is gone leads")
	}
	must(t, first.Restart())
	must(t, c.Await())

	// Of three, one alone answers nothing.
	c.Members[0].Pause()
	c.Members[1].Pause()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := etcdHealthy(ctx, c.Members[2].Addr); err == nil {
		t.Error("a minority is healthy")
	}
	c.Members[0].Resume()
	c.Members[1].Resume()
	must(t, c.Await())
}

func TestEtcdStartsAgain(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := Etcd(t)
	s.Kill()
	must(t, s.Restart())
	must(t, s.RestartEmpty())
}
