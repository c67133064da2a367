package servers

import "syscall"

// ownGroup makes the child the leader of its own process group, and has the
// kernel end it if the process that started it goes without a word. SIGTERM, so
// that one with children of its own, such as nginx, takes them along.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
