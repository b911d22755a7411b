package proxy

import (
	"net"
	"testing"
	"time"
)

func TestProxy_IsAsSlowAsItIsTold(t *testing.T) {
	t.Parallel()
	p, conn := start(t)
	p.Slow(200*time.Millisecond, 1)
	began := time.Now()
	if got, err := exchange(conn, "in pieces", 30*time.Second); err != nil || got != "in pieces\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("there and back took %v, want two delays of 200ms", took)
	}
	p.Slow(0, 0)
	if got, err := exchange(conn, "at once", 30*time.Second); err != nil || got != "at once\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestProxy_GoesWhereItIsRetargeted(t *testing.T) {
	t.Parallel()
	p, _ := start(t)
	p.Retarget(echo(t))
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := exchange(conn, "elsewhere", 30*time.Second); err != nil || got != "elsewhere\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// The echo stands for a server that has received a COMMIT and answers it.
func TestProxy_LosesACommitOrItsReply(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]Direction{"before the server has it": ToServer, "after": ToClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, conn := start(t)
			if _, err := exchange(conn, "insert", 30*time.Second); err != nil {
				t.Fatal(err)
			}
			p.LoseCommit(d)
			if _, err := conn.Write(commitEnds[0]); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes of a reply came", n)
			}
			if got := p.KeepCommits(); got != 1 {
				t.Errorf("%d COMMITs lost, want 1", got)
			}
		})
	}
}
