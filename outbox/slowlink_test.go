package outbox_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/outbox"
)

// slowly is a way to the lab's database over a link that holds everything up by
// delay.
func (l *lab) slowly(delay time.Duration) *pgx.ConnConfig {
	l.t.Helper()
	p, err := proxy.Listen("") // the dialer below knows the server
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := l.db.Config().ConnConfig.Copy()
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.Retarget(addr)
		return dial(ctx, "tcp", p.Addr())
	}
	p.Slow(delay, 0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	return cfg
}

// Found by the nemesis: what a session prepares over a slow link takes longer
// than its lease lasts.
func TestRelay_LeadsOverALinkSlowerThanItsLease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r, err := outbox.NewRelay(l.slowly(40*time.Millisecond), l.dial, outbox.RelayConfig{
		Streams: []jetstream.StreamConfig{l.stream}, Lease: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	l.insert(0, 3)
	l.waitCaughtUp()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
