package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are taken below those that Linux gives to connections (from 32768 on): a
// server that is down for a while has to find its port again, and one of the
// others any connection of a storm may have by then.
const (
	firstPort = 12_000
	lastPort  = 32_000
	portTries = 200
)

// given are the ports that this process has had; each is given once.
var given sync.Map

// Listen takes a free port of 127.0.0.1. Close it, and a server can have it.
func Listen() (l net.Listener, err error) {
	for range portTries {
		port := strconv.Itoa(firstPort + rand.IntN(lastPort-firstPort))
		if _, twice := given.LoadOrStore(port, true); twice {
			continue
		}
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port among %d tried: %v", portTries, err)
}

// freeAddr is an address that was free a moment ago.
func freeAddr() (string, error) {
	l, err := Listen()
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
