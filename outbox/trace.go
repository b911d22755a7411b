package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Trace is one row of a message in the outbox, and a batch that published it. A
// message that was redriven has several.
type Trace struct {
	OutboxID    int64      `json:"outbox_id" db:"id"`
	Subject     string     `json:"subject"`
	Key         *string    `json:"key,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	Batch       *int64     `json:"batch,omitempty"`
	PublishedAt *time.Time `json:"published_at,omitempty"`
	// Streams are those of the batch with their last sequence at that moment.
	Streams map[string]streamState `json:"streams,omitempty"`
}

// traceSQL goes by last_id, so that it looks at few more batches than were
// published while the row's transaction was open.
const traceSQL = `
SELECT o.id, o.subject, o.key, o.created_at, b.seq AS batch, b.published_at, b.streams
FROM jetbox.outbox o
LEFT JOIN LATERAL (
	SELECT l.seq, greatest(o.created_at, l.published_at) AS published_at, l.streams FROM jetbox.relay_batch l
	LEFT JOIN jetbox.relay_batch p ON p.seq = l.seq - 1
	WHERE l.last_id >= o.id AND l.first_id <= o.id` + byBatchSQL + `
	ORDER BY l.last_id LIMIT 1) b ON true
WHERE o.message_id = $1
ORDER BY o.id`

// ReadTrace returns what the outbox and its ledger still know of a message.
func ReadTrace(ctx context.Context, db *pgx.Conn, id uuid.UUID) (list []Trace, err error) {
	err = pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, statusIndexSQL); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, traceSQL, id)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByName[Trace])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: trace: %w", err)
	}
	return list, nil
}
