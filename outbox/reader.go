package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A poll that finds more than this is a backlog, walked in chunks instead.
const (
	pollRows  = 4000
	pollBytes = 8 << 20
)

// reader finds the rows that became visible since its position, in order.
type reader struct {
	conn *pgx.Conn
	at   position
	out  chan<- *batch
	bell doorbell
	m    *metrics

	sending  func() // called before each batch is sent
	caughtUp func() // called after a poll that found nothing
}

// run reads until ctx is done.
func (r *reader) run(ctx context.Context) error {
	if err := r.bell.listen(ctx); err != nil {
		return err
	}
	for {
		found, err := r.next(ctx)
		if err == nil && !found {
			err = r.bell.wait(ctx)
		} else if err == nil {
			err = r.bell.awake(ctx)
		}
		if err != nil || ctx.Err() != nil {
			return unlessDone(ctx, fmt.Errorf("read: %w", err))
		}
	}
}

// next sends what one poll finds, or walks the window that is open.
func (r *reader) next(ctx context.Context) (found bool, err error) {
	if !r.at.open {
		p, err := r.poll(ctx)
		if err != nil {
			return false, fmt.Errorf("poll: %w", err)
		}
		r.m.poll(p)
		if !p.overflow {
			return len(p.rows) > 0, r.sendPoll(ctx, p)
		}
		if err := r.openWindow(ctx, p.snap); err != nil {
			return false, fmt.Errorf("open window: %w", err)
		}
	}
	if err := r.walk(ctx); err != nil {
		return false, fmt.Errorf("walk window: %w", err)
	}
	return true, nil
}

// polled is what one poll returned: one statement, so one snapshot.
type polled struct {
	snap     snapshot
	rows     []row
	overflow bool // more rows or bytes than a poll may hold; rows are incomplete
}

// pollSQL returns the snapshot first (id 0), then every row that became visible
// since the one that $1 (xmax) and $2 (xip) describe.
const pollSQL = `
SELECT 0::bigint AS id, NULL::uuid AS message_id, pg_current_snapshot()::text AS subject, NULL::text AS key,
	NULL::json AS headers, NULL::json AS payload, NULL::bytea AS payload_bytes, NULL::text AS content_type
UNION ALL (SELECT ` + rowColumns + ` FROM jetbox.outbox WHERE xid >= $1 ORDER BY xid LIMIT $3)
UNION ALL (SELECT ` + rowColumns + ` FROM jetbox.outbox WHERE xid = ANY($2) LIMIT $3)`

func (r *reader) poll(ctx context.Context) (f polled, err error) {
	rows, err := r.conn.Query(ctx, pollSQL, binaryFormat, r.at.snap.xmax, r.at.snap.xip, pollRows+1)
	if err != nil {
		return f, err
	}
	defer rows.Close()
	var a arena
	size := 0
	for rows.Next() {
		v := rows.RawValues()
		if v[1] == nil {
			if f.snap, err = parseSnapshot(string(v[2])); err != nil {
				return f, err
			}
			continue
		}
		if f.overflow = len(f.rows) == pollRows || size > pollBytes; f.overflow {
			break
		}
		f.rows = append(f.rows, a.scan(v))
		size += f.rows[len(f.rows)-1].size()
	}
	rows.Close()
	return f, rows.Err()
}

// sendPoll passes a whole poll on. An empty one only moves the snapshot in
// memory: the ledger's older one still describes the same rows.
func (r *reader) sendPoll(ctx context.Context, f polled) error {
	from := r.at
	r.at = position{snap: f.snap}
	if len(f.rows) == 0 {
		r.caughtUp()
		return nil
	}
	for _, b := range split(f.rows, from, f.snap) {
		if err := r.send(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) send(ctx context.Context, b *batch) error {
	r.sending()
	select {
	case r.out <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
