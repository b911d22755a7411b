package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

// operator is a connection of the person who pauses.
func (l *lab) operator() *pgx.Conn {
	l.t.Helper()
	conn, err := pgx.ConnectConfig(l.t.Context(), l.db.Config().ConnConfig)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (l *lab) pause(d time.Duration) {
	l.t.Helper()
	err := pgx.BeginFunc(l.t.Context(), l.db, func(tx pgx.Tx) error { return outbox.Pause(l.t.Context(), tx, d) })
	if err != nil {
		l.t.Fatal(err)
	}
}

// The pause is durable: it holds for a relay that starts later, too.
func TestRelay_PublishesNothingWhilePaused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	conn := l.operator()
	stop := l.relay()
	l.insert(1, 3)
	l.waitCaughtUp()
	l.pause(time.Hour)
	testenv.Eventually(t, "the relay to rest", func() bool {
		return ask[int](l, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jetbox relay reader'`) == 0
	})
	l.insert(4, 3)
	stop()
	l.relay()
	testenv.Eventually(t, "the next relay to lead", func() bool { return ask[bool](l, `SELECT expires_at > now() FROM jetbox.relay_lease`) })
	s, err := outbox.ReadStatus(t.Context(), conn)
	if err != nil || s.Pending != 3 || s.PausedUntil == nil || len(l.stored()) != 3 {
		t.Errorf("status = %+v, %v with %d stored, want 3 pending, 3 stored and a pause", s, err, len(l.stored()))
	}
	l.pause(0)
	l.waitCaughtUp()
	if n := len(l.stored()); n != 6 {
		t.Errorf("%d messages are stored, want 6: each once", n)
	}
}

func TestRelay_GoesOnWhenItsPauseIsOver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	conn := l.operator()
	l.pause(300 * time.Millisecond)
	l.relay()
	l.insert(1, 1)
	l.waitCaughtUp()
	if s, err := outbox.ReadStatus(t.Context(), conn); err != nil || s.PausedUntil != nil || s.PublishedPerSecond < 1.0/61 {
		t.Errorf("status = %+v, %v, want no pause and a message in the last minute", s, err)
	}
}
