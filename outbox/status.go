package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Status is what an operator asks first.
type Status struct {
	// Pending counts committed messages that are not yet published.
	Pending int64 `json:"pending"`
	// Estimated tells that Pending stopped counting at PendingCap, or is an upper
	// bound while a backlog is walked.
	Estimated bool `json:"pending_estimated"`
	// OldestPending is when the oldest of them was inserted; nil when none is.
	OldestPending *time.Time `json:"oldest_pending"`
	// OldestPendingAge is its age by the database's clock.
	OldestPendingAge time.Duration `json:"-"`
	// Published counts the messages of the newest PendingCap batches in the ledger.
	Published int64 `json:"published"`
	// LastBatchAt is when the newest batch was recorded; nil when none was.
	LastBatchAt *time.Time `json:"last_batch_at"`
	// Scheduled counts messages for later, up to PendingCap.
	Scheduled int64 `json:"scheduled"`
	// Leader is the owner of the lease, empty when nobody holds it.
	Leader string `json:"leader"`
	// Epoch counts how often the lease changed hands.
	Epoch int64 `json:"epoch"`
	// PausedUntil is set while an operator keeps the relay from publishing.
	PausedUntil *time.Time `json:"paused_until"`
	// PublishedPerSecond is the mean of the last minute.
	PublishedPerSecond float64 `json:"published_per_second"`
}

// PendingCap bounds what ReadStatus counts, so that it stays cheap at any
// backlog and any history.
const PendingCap = 100_000

// unsentSQL finds pending rows by the xid index alone: what the newest ledger row
// does not cover. While a backlog is walked, ids tell how much is left.
const unsentSQL = `
WITH b AS (
	SELECT coalesce(l.prev_snap, l.snap, '1:1:') AS snap, l.pos_id
	FROM (SELECT) one LEFT JOIN (SELECT * FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1) l ON true
), fresh AS (
	(SELECT created_at FROM jetbox.outbox
		WHERE xid >= (SELECT pg_snapshot_xmax(snap) FROM b WHERE pos_id IS NULL) LIMIT @cap)
	UNION ALL
	(SELECT created_at FROM jetbox.outbox
		WHERE xid = ANY (ARRAY (SELECT pg_snapshot_xip(snap) FROM b WHERE pos_id IS NULL)) LIMIT @cap)
), backlog AS (
	SELECT (SELECT last_value FROM jetbox.outbox_id_seq) - pos_id AS n,
		(SELECT created_at FROM jetbox.outbox WHERE id > b.pos_id AND id <= b.pos_id + 20000 ORDER BY id LIMIT 1) AS oldest
	FROM b WHERE pos_id IS NOT NULL
), pending AS (
	SELECT n, oldest, true AS estimated FROM backlog
	UNION ALL
	SELECT count(*), min(created_at), count(*) >= @cap FROM fresh WHERE NOT EXISTS (SELECT FROM backlog)
), lag AS (
	SELECT n, estimated, oldest, coalesce(extract(epoch FROM clock_timestamp() - oldest), 0)::float8 AS age
	FROM pending ORDER BY n DESC LIMIT 1
)`

// lagSQL is what the relay itself asks every few seconds.
const lagSQL = unsentSQL + `SELECT n, age FROM lag`

// statusSQL judges the lease by when its snapshot was taken, not by when it is
// looked at: on a busy machine, a lease that is renewed has run out by then.
const statusSQL = unsentSQL + `
SELECT lag.*,
	(SELECT coalesce(sum(n), 0) FROM (SELECT n FROM jetbox.relay_batch ORDER BY seq DESC LIMIT @cap) l),
	(SELECT published_at FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1),
	(SELECT count(*) FROM (SELECT FROM jetbox.scheduled LIMIT @cap) s),
	(SELECT CASE WHEN expires_at > statement_timestamp() THEN owner ELSE '' END FROM jetbox.relay_lease),
	(SELECT epoch FROM jetbox.relay_lease),
	(SELECT paused_until FROM jetbox.relay_lease WHERE paused_until > statement_timestamp()),
	(SELECT coalesce(sum(n), 0) / 60.0 FROM (SELECT n, published_at FROM jetbox.relay_batch ORDER BY seq DESC LIMIT @cap) l
		WHERE published_at > clock_timestamp() - interval '1 minute')::float8
FROM lag`

// ReadStatus reads the outbox's status, quickly at any backlog and history.
func ReadStatus(ctx context.Context, db *pgx.Conn) (s Status, err error) {
	var age float64
	err = ask(ctx, db, statusSQL, &s.Pending, &s.Estimated, &s.OldestPending, &age, &s.Published, &s.LastBatchAt,
		&s.Scheduled, &s.Leader, &s.Epoch, &s.PausedUntil, &s.PublishedPerSecond)
	if err != nil {
		return Status{}, fmt.Errorf("outbox: status: %w", err)
	}
	s.OldestPendingAge = time.Duration(age * float64(time.Second))
	return s, nil
}

// statusIndexSQL is for the planner, which has no statistics of the children. What
// it then thinks of the costs would have it compile the query, for a second.
const statusIndexSQL = `SET LOCAL enable_seqscan = off; SET LOCAL jit = off`

// ask reads the one row of sql, which counts up to PendingCap.
func ask(ctx context.Context, db *pgx.Conn, sql string, dest ...any) error {
	return pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, statusIndexSQL); err != nil {
			return err
		}
		return tx.QueryRow(ctx, sql, pgx.StrictNamedArgs{"cap": PendingCap}).Scan(dest...)
	})
}
