package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Sent is a message as a batch of the ledger published it.
type Sent struct {
	Batch       int64     `json:"batch"`
	OutboxID    int64     `json:"outbox_id"`
	MessageID   uuid.UUID `json:"id"`
	Subject     string    `json:"subject"`
	Key         *string   `json:"key,omitempty"`
	PublishedAt time.Time `json:"published_at"`
}

const lastBatchSQL = `SELECT coalesce(max(seq), 0) FROM jetbox.relay_batch`

// LastBatch returns the newest batch of the ledger, from which ReadSent goes on.
func LastBatch(ctx context.Context, db *pgx.Conn) (seq int64, err error) {
	if err := db.QueryRow(ctx, lastBatchSQL).Scan(&seq); err != nil {
		return 0, fmt.Errorf("outbox: last batch: %w", err)
	}
	return seq, nil
}

// sentRows bounds what ReadSent returns: at least the newest row of the ledger, whole.
const sentRows = batchRows + recordRows

// newSQL finds what came after batch $1: the newest batch, the one from which $2
// messages suffice, and how many messages that leaves out.
const newSQL = `
SELECT coalesce(max(seq), $1), coalesce(max(seq) FILTER (WHERE so_far > $2), $1),
	coalesce(sum(n) FILTER (WHERE so_far > $2), 0)
FROM (SELECT seq, n, sum(n) OVER (ORDER BY seq DESC) AS so_far FROM jetbox.relay_batch WHERE seq > $1) l`

// byBatchSQL says that batch l published message o: it covers it, and p, the batch
// before, does not.
const byBatchSQL = `
	AND (pg_visible_in_snapshot(o.xid, coalesce(l.prev_snap, l.snap)) OR (o.id <= l.pos_id AND pg_visible_in_snapshot(o.xid, l.snap)))
	AND (pg_visible_in_snapshot(o.xid, coalesce(p.prev_snap, p.snap)) OR (o.id <= p.pos_id AND pg_visible_in_snapshot(o.xid, p.snap))) IS NOT TRUE`

const sentSQL = `
SELECT l.seq AS batch, o.id AS outbox_id, o.message_id, o.subject, o.key,
	greatest(o.created_at, l.published_at) AS published_at
FROM jetbox.relay_batch l
LEFT JOIN jetbox.relay_batch p ON p.seq = l.seq - 1
JOIN jetbox.outbox o ON o.id BETWEEN l.first_id AND l.last_id
WHERE l.seq > $1 AND l.seq <= $2` + byBatchSQL + `
ORDER BY l.seq, o.id`

// ReadSent returns the messages of the batches after one, and the batch to go on
// from. When they are too many at once, it leaves out the older ones and says
// how many.
func ReadSent(ctx context.Context, db *pgx.Conn, after int64) (list []Sent, last, skipped int64, err error) {
	err = pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, statusIndexSQL); err != nil {
			return err
		}
		var from int64
		if err := tx.QueryRow(ctx, newSQL, after, sentRows).Scan(&last, &from, &skipped); err != nil || last == from {
			return err
		}
		rows, err := tx.Query(ctx, sentSQL, from, last)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByName[Sent])
		return err
	})
	if err != nil {
		return nil, after, 0, fmt.Errorf("outbox: sent: %w", err)
	}
	return list, last, skipped, nil
}
