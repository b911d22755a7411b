package outbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// openConn opens a session of db.
func openConn(t *testing.T, db *pgxpool.Pool) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// twoConns returns two sessions of one database.
func twoConns(t *testing.T) (a, b *pgx.Conn) {
	t.Helper()
	db := testenv.Database(t)
	return openConn(t, db), openConn(t, db)
}

func someBatch() *batch {
	return &batch{rows: []row{{id: 7}}, after: position{snap: genesis}, streams: map[string]streamState{}}
}

func TestLedger_LetsOnlyOneOfTwoRelaysWriteTheNextRow(t *testing.T) {
	t.Parallel()
	a, b := twoConns(t)
	first, second := &ledger{conn: a}, &ledger{conn: b}
	for _, l := range []*ledger{first, second} {
		if _, err := l.load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.append(t.Context(), someBatch()); err != nil {
		t.Fatal(err)
	}
	if err := second.append(t.Context(), someBatch()); !errors.Is(err, errFenced) {
		t.Errorf("append of the same row by another relay = %v, want errFenced", err)
	}
}

func TestLedger_RefusesARelayOfAnOlderEpoch(t *testing.T) {
	t.Parallel()
	a, b := twoConns(t)
	if _, err := b.Exec(t.Context(), `UPDATE jetbox.relay_lease SET epoch = 5`); err != nil {
		t.Fatal(err)
	}
	if err := (&ledger{conn: a, epoch: 4}).append(t.Context(), someBatch()); !errors.Is(err, errFenced) {
		t.Errorf("append under an older epoch = %v, want errFenced", err)
	}
}

func TestLedger_RefusesAClusterThatHasCountedLess(t *testing.T) {
	t.Parallel()
	a, _ := twoConns(t)
	if _, err := a.Exec(t.Context(), `INSERT INTO jetbox.relay_batch (seq, epoch, snap, n) VALUES (1, 0, '9000000000:9000000000:', 0)`); err != nil {
		t.Fatal(err)
	}
	if _, err := (&ledger{conn: a}).load(t.Context()); !errors.Is(err, errRestored) {
		t.Errorf("load = %v, want errRestored", err)
	}
}

func TestLedger_RemembersAnOpenWindow(t *testing.T) {
	t.Parallel()
	a, _ := twoConns(t)
	l := &ledger{conn: a}
	b := someBatch()
	to, err := parseSnapshot("10:20:12,15")
	if err != nil {
		t.Fatal(err)
	}
	b.after = position{snap: genesis}.within(to, 7)
	if err := l.append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	got, err := (&ledger{conn: a}).load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !got.open || got.pos != 7 || got.prev.text != genesis.text || got.snap.text != to.text || len(got.snap.xip) != 2 {
		t.Errorf("loaded %+v, want the window (%s, %s] at 7", got, genesis.text, to.text)
	}
}

func TestLease_GoesToAnotherOnlyWhenItEnds(t *testing.T) {
	t.Parallel()
	a, b := twoConns(t)
	first, second := &lease{conn: a, owner: "first", ttl: time.Second}, &lease{conn: b, owner: "second", ttl: time.Minute}
	if err := first.acquire(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if taken, err := second.take(t.Context()); taken || err != nil {
		t.Fatalf("take while another holds it = %v, %v", taken, err)
	}
	start := time.Now()
	if err := second.acquire(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(start); waited < 500*time.Millisecond || waited > 3*time.Second {
		t.Errorf("took over after %v, want about the 1s the lease lasts", waited)
	}
	if first.valid() {
		t.Error("the first relay still thinks that it may publish")
	}
	if _, err := first.renew(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("renew by the relay that lost the lease = %v, want errFenced", err)
	}
}

func TestLease_EndsThoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	conn, _ := twoConns(t)
	const ahead = `UPDATE jetbox.relay_lease SET owner = 'gone',
		renewed_at = clock_timestamp() + interval '10 minutes', expires_at = clock_timestamp() + interval '10 minutes 4 seconds'`
	if _, err := conn.Exec(t.Context(), ahead); err != nil {
		t.Fatal(err)
	}
	if taken, err := (&lease{conn: conn, owner: "next", ttl: 4 * time.Second}).take(t.Context()); !taken || err != nil {
		t.Errorf("take a lease of a clock that was ahead = %v, %v, want it at once", taken, err)
	}
}

// As VACUUM FULL locks it, or a producer.
func TestLease_IsRenewedWhileTheScheduledMessagesAreLocked(t *testing.T) {
	t.Parallel()
	a, b := twoConns(t)
	l := &lease{conn: a, owner: "first", ttl: time.Minute}
	if err := l.acquire(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), `INSERT INTO jetbox.scheduled (subject, payload, run_at) VALUES ('jobs.a', '1', now())`); err != nil {
		t.Fatal(err)
	}
	if p, err := l.renew(t.Context()); err != nil || !p.due {
		t.Errorf("renew = %+v, %v, want a message that is due", p, err)
	}
	if _, err := b.Exec(t.Context(), `BEGIN; LOCK TABLE jetbox.scheduled`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if p, err := l.renew(ctx); err != nil || p.due {
		t.Errorf("renew behind a lock = %+v, %v, want it done, and nothing due", p, err)
	}
}

func TestLease_PassesAtOnceWhenItIsGivenBack(t *testing.T) {
	t.Parallel()
	a, b := twoConns(t)
	first, second := &lease{conn: a, owner: "first", ttl: time.Hour}, &lease{conn: b, owner: "second", ttl: time.Hour}
	if err := first.acquire(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	waiting, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- second.acquire(t.Context(), func() { close(waiting) }) }()
	<-waiting
	if err := first.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(2 * time.Second):
		t.Fatal("the standby was not told")
	}
	if second.epoch != first.epoch+1 {
		t.Errorf("epoch %d after %d, want one more", second.epoch, first.epoch)
	}
}
