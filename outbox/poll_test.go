package outbox

import (
	"context"
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// What a poll does not use it has to read all the same.
func TestPoll_AsksForFewWhereRowsAreLarge(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	from := &table{conn: conn}
	insert := func(n, bytes int) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload_bytes)
			SELECT 'jobs.x', convert_to(repeat('x', $2), 'UTF8') FROM generate_series(1, $1::int)`, n, bytes); err != nil {
			t.Fatal(err)
		}
	}
	insert(150, 100_000)
	since := genesis
	for _, tt := range []struct {
		insert   int
		overflow bool
		rows     int // that the next poll asks for
	}{{0, true, fewRows}, {10, false, 2 * fewRows}, {250, true, 4 * fewRows}, {250, false, 8 * fewRows}} {
		insert(tt.insert, 10)
		p, err := from.poll(t.Context(), since)
		if err != nil || p.overflow != tt.overflow || from.rows != tt.rows {
			t.Fatalf("poll after %d rows = overflow %t, %v, and then asks for %d, want %t and %d", tt.insert, p.overflow, err, from.rows, tt.overflow, tt.rows)
		}
		since = p.snap
	}
}

// backlogged is a table with more than a poll may hold, which notes whether the
// relay is awake when the walk begins.
type backlogged struct {
	*table
	bell   *doorbell
	asleep bool
}

func (b *backlogged) poll(ctx context.Context, since snapshot) (polled, error) {
	p, err := b.table.poll(ctx, since)
	p.overflow = true
	return p, err
}

func (b *backlogged) startWalk(ctx context.Context) (int64, error) {
	b.asleep = b.bell.asleep
	return b.table.startWalk(ctx)
}

// Each writer would ring for as long as the walk takes.
func TestReader_IsAwakeWhileItWalksABacklog(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`); err != nil {
		t.Fatal(err)
	}
	r := &reader{
		at: position{snap: genesis}, bell: doorbell{conn: conn, fallback: time.Minute}, pace: newPace(), m: newMetrics(),
		out: make(chan *batch, 2), sending: func() {}, backlog: func() {}, caughtUp: func() {},
	}
	if err := r.bell.lieDown(t.Context()); err != nil || !r.bell.asleep {
		t.Fatalf("asleep = %v, %v", r.bell.asleep, err)
	}
	from := &backlogged{table: &table{conn: conn}, bell: &r.bell}
	r.from = from
	if n, err := r.next(t.Context()); err != nil || n != pollRows || from.asleep {
		t.Errorf("next = %d, %v, asleep %v, want a walk while awake", n, err, from.asleep)
	}
}
