package outbox

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// ringLab is a ring without a relay: the test plays the relay's part.
type ringLab struct {
	t    *testing.T
	ring *ring
	db   interface {
		execer
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
		Begin(ctx context.Context) (pgx.Tx, error)
	}
}

func newRingLab(t *testing.T) *ringLab {
	db := testenv.Database(t)
	return &ringLab{t: t, db: db, ring: &ring{
		conn: openConn(t, db), retention: time.Hour, confirm: &confirmation{}, log: slog.New(slog.DiscardHandler),
	}}
}

func (l *ringLab) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ringLab) insert() {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ('a', '1')`)
}

// publish records everything visible as published, age ago.
func (l *ringLab) publish(age time.Duration) {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.relay_batch (seq, epoch, snap, n, first_id, last_id, published_at)
		SELECT coalesce((SELECT max(seq) FROM jetbox.relay_batch), 0) + 1, 0, pg_current_snapshot(), 1,
			(SELECT max(id) FROM jetbox.outbox), (SELECT max(id) FROM jetbox.outbox), now() - $1::interval`, age)
}

func (l *ringLab) nextChild() {
	l.t.Helper()
	l.exec(`SELECT setval('jetbox.outbox_id_seq', ((last_value >> 24) + 1) << 24) FROM jetbox.outbox_id_seq`)
}

func (l *ringLab) turn() {
	l.t.Helper()
	if err := l.ring.turn(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ringLab) want(rows int, why string) {
	l.t.Helper()
	var got int
	if err := l.db.QueryRow(l.t.Context(), `SELECT count(*) FROM jetbox.outbox`).Scan(&got); err != nil {
		l.t.Fatal(err)
	}
	if got != rows {
		l.t.Fatalf("outbox holds %d messages, want %d: %s", got, rows, why)
	}
}

func TestRing_EmptiesAChildOnlyWhenItIsSentAndOld(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.insert()
	l.nextChild()
	l.insert()
	l.turn()
	l.want(2, "nothing is published")
	l.publish(time.Minute)
	l.turn()
	l.want(2, "published a minute ago, and kept for an hour")
	l.publish(2 * time.Hour)
	l.turn()
	l.want(1, "the first child is published and old; the live one is never emptied")
}

// What a purge took can be published again only while the outbox has it.
func TestRing_KeepsWhatIsNotConfirmedWhereSomebodyConfirms(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.ring.confirm.consumer = "w"
	l.insert()
	l.publish(2 * time.Hour)
	l.nextChild()
	l.insert()
	l.publish(2 * time.Hour)
	l.ring.confirm.seq = 1
	l.turn()
	l.want(2, "only the first batch is confirmed: of the lap there may be more in the next")
	l.ring.confirm.seq = 2
	l.turn()
	l.want(1, "all of the first child is confirmed")
}

func TestRing_KeepsTheRowOfALateWriterWithAnOldID(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	late, err := l.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), `SELECT nextval('jetbox.outbox_id_seq')`); err != nil {
		t.Fatal(err)
	}
	l.insert()
	l.nextChild()
	l.insert()
	l.publish(2 * time.Hour)
	l.turn()
	l.want(1, "the first child is published and old")
	if _, err := late.Exec(t.Context(), `INSERT INTO jetbox.outbox (id, subject, payload) VALUES (currval('jetbox.outbox_id_seq'), 'a', '1')`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	l.turn()
	if waited := time.Since(start); waited > 5*time.Second {
		t.Errorf("the ring waited %v for a writer", waited)
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.turn()
	l.want(2, "the late row is not published")
	l.publish(2 * time.Hour)
	l.turn()
	l.want(1, "now it is")
}

func TestRing_NeverMakesAnInsertWaitBehindAReader(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.insert()
	l.nextChild()
	l.insert()
	l.publish(2 * time.Hour)
	reader, err := l.db.Begin(t.Context()) // as pg_dump does
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), `LOCK TABLE jetbox.outbox IN ACCESS SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	l.turn()
	l.want(2, "a reader is in the way")
	l.insert()
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.turn()
	l.want(2, "the reader has gone")
}

func TestRing_MovesOnWhenItIsQuiet(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.insert()
	l.publish(2 * time.Hour)
	l.turn()
	l.want(1, "the only child is live")
	l.insert()
	l.publish(2 * time.Hour) // as time goes by
	l.turn()
	l.want(1, "the sequence moved on, so the first child could be emptied")
}

func TestRing_GivesUpRetentionRatherThanGrowWithoutBound(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.insert()
	for range children - 1 {
		l.nextChild()
	}
	l.exec(`SELECT setval('jetbox.outbox_id_seq', last_value + (1 << 23)) FROM jetbox.outbox_id_seq`)
	l.insert()
	l.turn()
	l.want(2, "an unpublished message is never dropped")
	l.publish(time.Second)
	l.turn()
	l.want(1, "the next child is about to be filled")
}

func TestRing_PrunesTheLedgerButNotItsNewestRow(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	for range 3 {
		l.insert()
		l.publish(3 * time.Hour)
	}
	l.turn()
	var n, newest int
	if err := l.db.QueryRow(t.Context(), `SELECT count(*), max(seq) FROM jetbox.relay_batch`).Scan(&n, &newest); err != nil {
		t.Fatal(err)
	}
	if n != 1 || newest != 3 {
		t.Errorf("ledger keeps %d rows up to %d, want only the newest, 3", n, newest)
	}
}

// fill adds some 270 pages of messages.
func (l *ringLab) fill() {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) SELECT 'a', '1' FROM generate_series(1, 20000)`)
}

func TestCoverage_GoesOnWithEachChildUntilAllIsCovered(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.fill()
	l.nextChild()
	l.fill()
	var c coverage
	for more := true; more; {
		var err error
		if more, err = c.extend(t.Context(), l.ring.conn); err != nil {
			t.Fatal(err)
		}
	}
	for child := range 2 { // the end of each is left
		var ranges int
		err := l.db.QueryRow(t.Context(), `SELECT brin_summarize_new_values('jetbox.outbox_`+strconv.Itoa(child)+`_brin')`).Scan(&ranges)
		if err != nil || ranges > 5 {
			t.Errorf("child %d has %d ranges without cover, %v", child, ranges, err)
		}
	}
}

func TestCoverage_GoesBackWhereTheChildHasShrunk(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	var c coverage
	for range 2 {
		l.fill()
		if _, err := c.extend(t.Context(), l.ring.conn); err != nil {
			t.Fatal(err)
		}
		if c.block == 0 {
			t.Error("nothing is covered")
		}
		l.exec(`TRUNCATE jetbox.outbox`)
		if _, err := c.extend(t.Context(), l.ring.conn); err != nil || c.block != 0 {
			t.Errorf("the coverage of nothing is at block %d, %v", c.block, err)
		}
	}
}

func TestCoverage_DoesNotWaitForAVacuum(t *testing.T) {
	t.Parallel()
	l := newRingLab(t)
	l.fill()
	vacuum, err := l.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vacuum.Exec(t.Context(), `LOCK TABLE jetbox.outbox_0 IN SHARE UPDATE EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var c coverage
	if more, err := c.extend(ctx, l.ring.conn); more || err != nil || c.block != 0 {
		t.Errorf("extend beside a vacuum = %v, %v, at block %d", more, err, c.block)
	}
	if err := vacuum.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if more, err := c.extend(ctx, l.ring.conn); !more || err != nil || c.block == 0 {
		t.Errorf("extend after the vacuum = %v, %v, at block %d", more, err, c.block)
	}
}
