package servers

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

// Scope is a TB for a program: what was started or created in it ends with it.
// Failures are panics of type Failure, for the program to recover.
type Scope struct {
	root     string // where TempDir makes directories
	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

// Failure is what a Scope panics with.
type Failure string

// NewScope makes its directories in root; "" is the system's place for them.
func NewScope(root string) *Scope { return &Scope{root: root} }

func (s *Scope) Helper()                     {}
func (s *Scope) Failed() bool                { return s.failed }
func (s *Scope) Logf(f string, args ...any)  { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (s *Scope) Skipf(f string, args ...any) { s.Fatalf(f, args...) }

func (s *Scope) Fatalf(f string, args ...any) {
	s.failed = true
	panic(Failure(fmt.Sprintf(f, args...)))
}

func (s *Scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *Scope) TempDir() string {
	dir, err := os.MkdirTemp(s.root, "")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // the next run makes another
	return dir
}

// End runs what was registered, last first.
func (s *Scope) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
	s.cleanups = nil
}
