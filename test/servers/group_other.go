//go:build !linux

package servers

import "syscall"

// ownGroup makes the child the leader of its own process group. Only Linux
// can also end it when the process that started it goes without a word.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// standsStill cannot be known here: a signal is taken to act at once.
func standsStill(int) bool { return true }
