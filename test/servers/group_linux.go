package servers

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup makes the child the leader of its own process group, and has the
// kernel end it if the process that started it goes without a word. SIGTERM, so
// that one with children of its own, such as nginx, takes them along; a stopped
// child is woken by the kernel too, as its group is then an orphan.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// standsStill answers whether the last thread of a child has stopped, or the
// child has ended. It leaves the end to be waited for by others.
func standsStill(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err != nil || info.Signo != 0
}
