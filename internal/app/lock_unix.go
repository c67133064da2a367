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
// however it ends. exclusive is for writers.
func Lock(data string, exclusive bool) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s: a server runs on it; stop it, or give another --data", ErrLocked, data)
	}
	if exclusive { // for people and scripts; the lock itself is the file's, not the number's
		if err := errors.Join(f.Truncate(0), write(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
			return nil, errors.Join(fmt.Errorf("data directory: %w", err), f.Close())
		}
	}
	return f.Close, nil
}

func write(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
