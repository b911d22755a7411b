package main

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseDatabase_NoticesAServerThatIsGone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, err := parseDatabase("postgres://x@"+l.Addr().String()+"/x", "test")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := cfg.ConnConfig.DialFunc(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 15_000, unix.TCP_KEEPIDLE: 5, unix.TCP_KEEPINTVL: 3, unix.TCP_KEEPCNT: 3} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("socket option %d = %d, %v, want %d", option, got, err, want)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}
