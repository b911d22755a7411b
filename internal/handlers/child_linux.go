package handlers

import "syscall"

// childAttr makes a process group that can be killed as one, and ends the
// command when we are killed: its message will be delivered again.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
