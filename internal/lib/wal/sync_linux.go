package wal

import (
	"os"
	"syscall"
)

// datasync is fdatasync: unlike fsync it leaves out the modification time, so
// a write into blocks that already hold data costs no journal commit.
func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		// EINTR: the call did not run to its end and reported nothing.
		for failed = syscall.Fdatasync(int(fd)); failed == syscall.EINTR; {
			failed = syscall.Fdatasync(int(fd))
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", failed)
}
