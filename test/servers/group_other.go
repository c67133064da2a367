//go:build !linux

package servers

import "syscall"

// ownGroup makes the child the leader of its own process group. Only Linux
// can also end it when the process that started it goes without a word.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
