package wal

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// FS is the seam to the file system: everything the log asks of a disk goes
// through it, so that tests can lose power at any point. Names are paths in
// the manner of the os package. A file removed while open stays readable.
type FS interface {
	// OpenFile takes the flags of the os package.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces new atomically; it is durable after SyncDir.
	Rename(old, new string) error
	Remove(name string) error
	// ReadDir returns the names in a directory, in any order.
	ReadDir(name string) ([]string, error)
	MkdirAll(name string, perm fs.FileMode) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
}

// File is one open file. Sync makes its data, and the metadata needed to read
// them back, durable (fdatasync).
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
	Close() error
}

// OS is the file system of this machine.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(old, new string) error                 { return os.Rename(old, new) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }

func (osFS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
