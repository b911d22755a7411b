package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that answers each line with itself.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func start(t *testing.T) (*Proxy, net.Conn) {
	t.Helper()
	p, err := Listen(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, conn
}

func exchange(conn net.Conn, line string, within time.Duration) (string, error) {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func TestProxy_HoldsBackEachDirectionUntilItIsReleased(t *testing.T) {
	for _, d := range []Direction{ToServer, ToClient} {
		p, conn := start(t)
		if got, err := exchange(conn, "a", time.Minute); got != "a\n" {
			t.Fatalf("through an open proxy: %q, %v", got, err)
		}
		p.Hold(d)
		if got, err := exchange(conn, "b", 50*time.Millisecond); err == nil {
			t.Fatalf("direction %d held: %q came through", d, got)
		}
		p.Release(d)
		if got, err := exchange(conn, "c", time.Minute); got != "b\n" {
			t.Fatalf("direction %d released: %q, %v, want what was held", d, got, err)
		}
	}
}

func TestProxy_CutDropsWhatWasHeldAndAcceptsAgain(t *testing.T) {
	p, conn := start(t)
	p.Hold(ToServer)
	if _, err := exchange(conn, "a", 50*time.Millisecond); err == nil {
		t.Fatal("held, but it came through")
	}
	p.Cut()
	if _, err := exchange(conn, "b", time.Minute); err == nil {
		t.Fatal("cut, but it came through")
	}
	p.Release(ToServer)
	again, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, err := exchange(again, "c", time.Minute); got != "c\n" {
		t.Fatalf("after the cut: %q, %v", got, err)
	}
}
