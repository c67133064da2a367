//go:build unix

package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrLocked: another server holds the data directory.
var ErrLocked = errors.New("data directory is in use")

// Lock takes the data directory for this process; the lock ends with it,
// however it ends.
func Lock(data string) (unlock func() error, err error) {
	f, err := lock(data)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// lockServer is Lock that also writes down whose it is, for people and
// scripts. The lock itself is the file's, not the number's.
func lockServer(data string) (unlock func() error, err error) {
	f, err := lock(data)
	if err != nil {
		return nil, err
	}
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	_, err = f.WriteAt(pid, 0)
	if err := errors.Join(err, f.Truncate(int64(len(pid)))); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory: %w", err), f.Close())
	}
	return f.Close, nil
}

func lock(data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s: a server runs on it; stop it, or give another --data", ErrLocked, data)
	}
	return f, nil
}
