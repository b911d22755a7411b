//go:build !linux

package localenv

import "syscall"

// childAttr keeps Ctrl-C from the child, which we stop in our own order.
func childAttr(user *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: user, Setpgid: true}
}
