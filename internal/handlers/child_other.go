//go:build !linux

package handlers

import "syscall"

// childAttr makes a process group that can be killed as one.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
