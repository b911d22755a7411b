package outbox_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/outbox"
)

// A transaction that commits late has ids among those of messages long sent, and
// its batch covers these too.
func TestStatus_NamesTheBatchThatPublishedAMessage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	early, late := l.begin(), l.begin()
	for _, tx := range []pgx.Tx{early, late, early, late, early} {
		if err := outbox.Enqueue(t.Context(), tx, outbox.Message{Subject: l.prefix + ".x", Payload: 1}); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, early)
	l.waitCaughtUp()
	const sentSQL = `SELECT sent_at FROM jetbox.outbox_status ORDER BY id OFFSET 2 LIMIT 1`
	was := ask[time.Time](l, sentSQL)
	commit(t, late)
	l.waitCaughtUp()
	if now := ask[time.Time](l, sentSQL); !now.Equal(was) {
		t.Errorf("sent_at was %v and became %v with a later batch", was, now)
	}
	for place, batch := range []int64{1, 2, 1, 2, 1} {
		id := ask[uuid.UUID](l, `SELECT message_id FROM jetbox.outbox ORDER BY id OFFSET $1 LIMIT 1`, place)
		if trace := l.trace(id); len(trace) != 1 || *trace[0].Batch != batch {
			t.Errorf("trace of message %d = %+v, want batch %d", place+1, trace, batch)
		}
	}
}

func (l *lab) begin() pgx.Tx {
	l.t.Helper()
	tx, err := l.db.Begin(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return tx
}

func commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) trace(id uuid.UUID) []outbox.Trace {
	l.t.Helper()
	conn, err := l.db.Acquire(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Release()
	trace, err := outbox.ReadTrace(l.t.Context(), conn.Conn(), id)
	if err != nil {
		l.t.Fatal(err)
	}
	return trace
}

func TestReadTrace_HasNoTimeForWhatIsPending(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.insert(0, 1)
	trace := l.trace(ask[uuid.UUID](l, `SELECT message_id FROM jetbox.outbox`))
	if len(trace) != 1 || trace[0].Batch != nil || trace[0].PublishedAt != nil {
		t.Errorf("trace = %+v, want neither batch nor time", trace)
	}
}
