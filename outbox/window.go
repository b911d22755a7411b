package outbox

import (
	"context"
	"fmt"
)

// A backlog is a window between two snapshots, walked by id in chunks: constant
// memory for a transaction of ten million rows or a day of downtime. The ledger
// row of each batch holds the place, so a restart resumes there.
const (
	chunkIDs = 20_000
	// An empty chunk makes the next one larger, to cross the gaps that a jump of
	// the sequence or a rollback leaves.
	maxChunkIDs = 1 << 20
	childBits   = 24 // ids per child of the ring, as in migrations
	children    = 8
)

// bitmapSQL lets the planner use the BRIN on id, which needs a bitmap scan; the
// poll must not, it wants the rows in the order of the xid index.
const (
	bitmapOnSQL  = `SET enable_bitmapscan = on`
	bitmapOffSQL = `SET enable_bitmapscan = off`
)

// windowStartSQL reads no more than the window itself holds.
const windowStartSQL = `
SELECT coalesce(min(id), 0) FROM (
	SELECT id FROM jetbox.outbox WHERE xid >= $1
	UNION ALL
	SELECT id FROM jetbox.outbox WHERE xid = ANY($2)) w`

// openWindow freezes to as the window's end and stands before its first row.
func (r *reader) openWindow(ctx context.Context, to snapshot) error {
	var first int64
	if err := r.conn.QueryRow(ctx, windowStartSQL, r.at.snap.xmax, r.at.snap.xip).Scan(&first); err != nil {
		return fmt.Errorf("find start: %w", err)
	}
	r.at = r.at.within(to, first-1)
	return nil
}

// windowEndSQL is above the id of every row that the window can hold.
const windowEndSQL = `SELECT last_value FROM jetbox.outbox_id_seq`

// walk sends the rest of the open window, then a batch without rows that closes it.
func (r *reader) walk(ctx context.Context) error {
	var end int64
	if err := r.conn.QueryRow(ctx, windowEndSQL).Scan(&end); err != nil {
		return fmt.Errorf("find end: %w", err)
	}
	if _, err := r.conn.Exec(ctx, bitmapOnSQL); err != nil {
		return fmt.Errorf("allow bitmap scans: %w", err)
	}
	if err := r.walkTo(ctx, end); err != nil {
		return err
	}
	if _, err := r.conn.Exec(ctx, bitmapOffSQL); err != nil {
		return fmt.Errorf("forbid bitmap scans: %w", err)
	}
	r.at = r.at.after()
	return r.send(ctx, &batch{after: r.at})
}

func (r *reader) walkTo(ctx context.Context, end int64) error {
	summarized := int64(-1)
	for step := int64(chunkIDs); r.at.pos < end; {
		lap := (r.at.pos + 1) >> childBits
		if lap != summarized {
			if err := r.summarize(ctx, lap); err != nil {
				return err
			}
			summarized = lap
		}
		to := min(r.at.pos+step, (lap+1)<<childBits-1, end)
		n, err := r.chunk(ctx, lap, to)
		if err != nil {
			return err
		}
		switch n {
		case chunkIDs:
			step = chunkIDs // the chunk's end was not reached: r.at.pos is its last row
			continue
		case 0:
			step = min(step*4, maxChunkIDs)
		default:
			step = chunkIDs
		}
		r.at.pos = to
	}
	return nil
}

const summarizeSQL = `SELECT jetbox.summarize_outbox($1)`

// summarize makes the BRIN cover the child's newest pages: each chunk would
// read all that it does not cover.
func (r *reader) summarize(ctx context.Context, lap int64) error {
	if _, err := r.conn.Exec(ctx, summarizeSQL, lap%children); err != nil {
		return fmt.Errorf("summarize child %d: %w", lap%children, err)
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

// chunk sends the window's rows up to id to as full batches, while they arrive.
func (r *reader) chunk(ctx context.Context, lap, to int64) (n int, err error) {
	rows, err := r.conn.Query(ctx, fmt.Sprintf(chunkSQL, lap%children), binaryFormat,
		r.at.pos, to, r.at.prev.text, r.at.snap.text, chunkIDs)
	if err != nil {
		return 0, fmt.Errorf("chunk: %w", err)
	}
	defer rows.Close()
	var a arena
	b := &batch{replay: r.at.replay}
	for ; rows.Next(); n++ {
		b.add(a.scan(rows.RawValues()))
		if b.full() {
			if err := r.sendChunk(ctx, b); err != nil {
				return n, err
			}
			a, b = nil, &batch{replay: r.at.replay}
		}
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("chunk: %w", err)
	}
	if len(b.rows) > 0 {
		err = r.sendChunk(ctx, b)
	}
	return n, err
}

func (r *reader) sendChunk(ctx context.Context, b *batch) error {
	r.at.pos = b.lastID()
	b.after = r.at
	return r.send(ctx, b)
}
