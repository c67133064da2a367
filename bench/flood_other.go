//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

// flood needs epoll.
type flood struct {
	addr        string
	requests    [][]byte
	connections int
	noQueue     bool
}

func (*flood) run(context.Context, *arrivals, time.Duration) (counted, error) {
	return counted{}, errors.New("the overload curve is measured on Linux only")
}

func spent() (time.Duration, error) { return 0, nil }
