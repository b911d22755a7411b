package main

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundSilence is for what was sent and not confirmed, when no keepalive is.
func boundSilence(network, _ string, conn syscall.RawConn) (err error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	refused := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(gone.Milliseconds()))
	})
	if refused != nil {
		return refused
	}
	return err
}
