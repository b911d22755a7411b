package outbox_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/outbox"
)

// A missed wake-up would wait for the fallback poll, here a minute. Each round
// waits until its messages are through, so no later commit can make up for it,
// and starts again at a random moment of the relay's falling asleep.
func TestDoorbell_WakesTheRelayForEveryCommit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay(func(c *outbox.RelayConfig) { c.FallbackPoll = time.Minute })
	nc, err := l.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync(l.prefix + ".>")
	if err != nil {
		t.Fatal(err)
	}
	slowest := time.Duration(0)
	for round := range 1000 {
		writers := 1 + round%3
		l.commitTogether(writers)
		start := time.Now()
		for range writers {
			if _, err := sub.NextMsg(10 * time.Second); err != nil {
				t.Fatalf("round %d: a commit woke nobody: %v", round, err)
			}
		}
		slowest = max(slowest, time.Since(start))
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
	}
	t.Logf("slowest wake-up %v", slowest)
}

// commitTogether inserts one message from each of n sessions, which overlap.
func (l *lab) commitTogether(n int) {
	l.t.Helper()
	var g errgroup.Group
	for i := range n {
		g.Go(func() error {
			return pgx.BeginFunc(context.Background(), l.db, func(tx pgx.Tx) error {
				_, err := tx.Exec(context.Background(), `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, l.prefix+".x")
				time.Sleep(time.Duration(i*rand.IntN(1500)) * time.Microsecond)
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		l.t.Fatal(err)
	}
}

// NOTIFY lets commits flush only one after the other, so writers must hardly ever
// need it while messages come all the time, with short gaps.
func TestDoorbell_StaysSilentUnderLoad(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var g errgroup.Group
	var commits atomic.Int64
	for range 3 {
		g.Go(func() error {
			for ctx.Err() == nil {
				l.insert(0, 1)
				commits.Add(1)
				time.Sleep(time.Duration(rand.IntN(int(4 * time.Millisecond))))
			}
			return nil
		})
	}
	rings := l.rings(ctx)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	n := int(commits.Load())
	t.Logf("%d notifications for %d commits", rings, n)
	if rings > n/4 {
		t.Errorf("%d notifications for %d commits, want next to none", rings, n)
	}
}

// rings counts notifications until ctx is done.
func (l *lab) rings(ctx context.Context) (n int) {
	l.t.Helper()
	conn, err := l.db.Acquire(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = conn.Hijack().Close(context.Background()) }() // it listens
	if _, err := conn.Exec(ctx, `LISTEN jetbox_outbox`); err != nil {
		l.t.Fatal(err)
	}
	for ; ; n++ {
		if _, err := conn.Conn().WaitForNotification(ctx); err != nil {
			return n
		}
	}
}

// queries counts what goes to Postgres.
type queries struct{ n atomic.Int64 }

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q *queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestRelay_AsksAtMostTwiceASecondWhenIdle(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var q queries
	db := l.db.Config().ConnConfig
	db.Tracer = &q
	r, err := outbox.NewRelay(db, l.dial, outbox.RelayConfig{Streams: []jetstream.StreamConfig{l.stream}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	l.insert(0, 1)
	l.waitCaughtUp()
	time.Sleep(200 * time.Millisecond) // to fall asleep
	before := q.n.Load()
	const seconds = 6
	time.Sleep(seconds * time.Second)
	if asked := q.n.Load() - before; asked > 2*seconds {
		t.Errorf("%d queries in %d s of idleness, want at most 2 a second", asked, seconds)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
