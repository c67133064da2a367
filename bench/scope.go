package main

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"sluice/test/servers"
)

// scope is a servers.TB for a program: what was started or created in it ends
// with it. Failures are panics of type failure, which main turns into exit 1.
type scope struct {
	root     string // where TempDir makes directories
	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

type failure string

// newScope is a scope within another.
func newScope(t servers.TB) *scope { return &scope{root: t.TempDir()} }

func (s *scope) Helper()                     {}
func (s *scope) Failed() bool                { return s.failed }
func (s *scope) Logf(f string, args ...any)  { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (s *scope) Skipf(f string, args ...any) { s.Fatalf(f, args...) }

func (s *scope) Fatalf(f string, args ...any) {
	s.failed = true
	panic(failure(fmt.Sprintf(f, args...)))
}

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp(s.root, "")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // the next run makes another
	return dir
}

// end runs what was registered, last first.
func (s *scope) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
	s.cleanups = nil
}
