package outbox

import (
	"cmp"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// table is jetbox.outbox as the reader asks it.
type table struct {
	conn *pgx.Conn
	rows int // that a poll asks for where they are large, zero for pollRows
}

// fewRows is how many a poll asks for at least.
const fewRows = 100

// pollSQL returns the snapshot first (id 0), then every row that became visible
// since the one that $1 (xmax) and $2 (xip) describe.
const pollSQL = `
SELECT 0::bigint AS id, NULL::uuid AS message_id, pg_current_snapshot()::text AS subject, NULL::text AS key,
	NULL::json AS headers, NULL::json AS payload, NULL::bytea AS payload_bytes, NULL::text AS content_type
UNION ALL (SELECT ` + rowColumns + ` FROM jetbox.outbox WHERE xid >= $1 ORDER BY xid LIMIT $3)
UNION ALL (SELECT ` + rowColumns + ` FROM jetbox.outbox WHERE xid = ANY($2) LIMIT $3)`

func (t *table) poll(ctx context.Context, since snapshot) (f polled, err error) {
	limit := cmp.Or(t.rows, pollRows)
	rows, err := t.conn.Query(ctx, pollSQL, binaryFormat, since.xmax, since.xip, limit+1)
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
		if f.overflow = len(f.rows) == limit || size > pollBytes; f.overflow {
			break
		}
		f.rows = append(f.rows, a.scan(v))
		size += f.rows[len(f.rows)-1].size()
	}
	rows.Close() // reads what is left of them
	t.rows = min(2*limit, pollRows)
	if size > pollBytes {
		t.rows = max(len(f.rows), fewRows)
	}
	return f, rows.Err()
}

// firstSQL reads no more than the window itself holds.
const firstSQL = `
SELECT coalesce(min(id), 0) FROM (
	SELECT id FROM jetbox.outbox WHERE xid >= $1
	UNION ALL
	SELECT id FROM jetbox.outbox WHERE xid = ANY($2)) w`

func (t *table) first(ctx context.Context, since snapshot) (id int64, err error) {
	return id, t.conn.QueryRow(ctx, firstSQL, since.xmax, since.xip).Scan(&id)
}

// bitmapSQL lets the planner use the BRIN on id, which needs a bitmap scan; the
// poll must not, it wants the rows in the order of the xid index.
const (
	bitmapOnSQL  = `SET enable_bitmapscan = on`
	bitmapOffSQL = `SET enable_bitmapscan = off`
)

// lastIDSQL is above the id of every row that a window can hold.
const lastIDSQL = `SELECT last_value FROM jetbox.outbox_id_seq`

func lastID(ctx context.Context, conn *pgx.Conn) (id int64, err error) {
	if err := conn.QueryRow(ctx, lastIDSQL).Scan(&id); err != nil {
		return 0, fmt.Errorf("find the newest id: %w", err)
	}
	return id, nil
}

func (t *table) startWalk(ctx context.Context) (end int64, err error) {
	if end, err = lastID(ctx, t.conn); err != nil {
		return 0, err
	}
	if _, err := t.conn.Exec(ctx, bitmapOnSQL); err != nil {
		return 0, fmt.Errorf("allow bitmap scans: %w", err)
	}
	return end, nil
}

func (t *table) endWalk(ctx context.Context) error {
	if _, err := t.conn.Exec(ctx, bitmapOffSQL); err != nil {
		return fmt.Errorf("forbid bitmap scans: %w", err)
	}
	return nil
}

// chunkSQL names the child: an id range cannot prune partitions that are cut by
// an expression on id. The window is asked for by functions, so that no plan can
// come by the index on xid, which finds the whole window for each chunk.
const chunkSQL = `
SELECT ` + rowColumns + `
FROM jetbox.outbox_%d
WHERE id > $1 AND id <= $2
	AND pg_visible_in_snapshot(xid, $4::pg_snapshot)
	AND NOT pg_visible_in_snapshot(xid, $3::pg_snapshot)
ORDER BY id
LIMIT $5`

func (t *table) chunk(ctx context.Context, p position, to int64, each func(row) error) (n int, cut bool, err error) {
	rows, err := t.conn.Query(ctx, fmt.Sprintf(chunkSQL, lapOf(p.pos+1)%children), binaryFormat,
		p.pos, to, p.prev.text, p.snap.text, chunkIDs)
	if err != nil {
		return 0, false, fmt.Errorf("chunk: %w", err)
	}
	defer rows.Close()
	var a arena
	for ; rows.Next(); n++ {
		if err := each(a.scan(rows.RawValues())); err != nil {
			return n, false, err
		}
	}
	if err := rows.Err(); err != nil {
		return n, false, fmt.Errorf("chunk: %w", err)
	}
	return n, n == chunkIDs, nil
}
