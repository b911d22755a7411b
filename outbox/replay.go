package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ReplayFrom says from where messages are published again. Exactly one field
// is set.
type ReplayFrom struct {
	Since  time.Time // batches recorded from then on
	FromID int64     // the batch that holds this outbox id, and later ones
	Batch  int64     // this batch, and later ones
}

// ErrReplayFrom reports a ReplayFrom that is not exactly one place.
var ErrReplayFrom = errors.New("outbox: replay: give exactly one of a time, an id and a batch")

// Replay is what a replay covers.
type Replay struct {
	// AfterBatch is the ledger row whose position the relay goes back to; 0 is
	// the beginning.
	AfterBatch int64 `json:"after_batch"`
	// Messages counts the rows of the outbox that are published again.
	Messages int64 `json:"messages"`
}

// replayTargetSQL finds the last batch before the given place.
const replayTargetSQL = `
WITH RECURSIVE back (seq) AS (
	SELECT coalesce(max(seq), 0)
	FROM jetbox.relay_batch
	WHERE seq < coalesce((
		SELECT min(seq) FROM jetbox.relay_batch
		WHERE n > 0 AND (published_at >= @since OR last_id >= @id OR seq >= @batch)), 9223372036854775807)` + furtherBackSQL + `
)
SELECT min(seq) FROM back`

// replayCountSQL counts what the target row does not cover and the newest does.
const replayCountSQL = `
WITH t AS (SELECT coalesce(prev_snap, snap) AS snap FROM jetbox.relay_batch WHERE seq = @target),
	b AS (SELECT snap FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1)
SELECT count(*)
FROM jetbox.outbox o, b
WHERE (o.xid >= coalesce((SELECT pg_snapshot_xmax(snap) FROM t), '0'::xid8)
		OR o.xid = ANY (ARRAY (SELECT pg_snapshot_xip(snap) FROM t)))
	AND pg_visible_in_snapshot(o.xid, b.snap)`

// rowQuerier is a connection or a transaction.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// PlanReplay returns what StartReplay takes.
func PlanReplay(ctx context.Context, db rowQuerier, from ReplayFrom) (Replay, error) {
	args, err := from.args()
	if err != nil {
		return Replay{}, err
	}
	var r Replay
	if err := db.QueryRow(ctx, replayTargetSQL, args).Scan(&r.AfterBatch); err != nil {
		return r, fmt.Errorf("outbox: replay: find batch: %w", err)
	}
	if err := db.QueryRow(ctx, replayCountSQL, pgx.StrictNamedArgs{"target": r.AfterBatch}).Scan(&r.Messages); err != nil {
		return r, fmt.Errorf("outbox: replay: count messages: %w", err)
	}
	return r, nil
}

// ErrReplayRaced reports that the relay has recorded a batch at the same moment.
// The transaction is to be repeated.
var ErrReplayRaced = errors.New("outbox: replay: the relay has just recorded a batch: repeat the transaction")

// StartReplay sends the relay back to where r begins once tx has committed, which
// it notices at its next batch or within seconds. Everything the outbox still
// holds from there on is published again, under IDs that pass the broker's
// duplicate window; inboxes absorb the repeats, other consumers see them.
func StartReplay(ctx context.Context, tx pgx.Tx, r Replay) error {
	err := rewind(ctx, tx, r.AfterBatch, map[string]streamState{})
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "23505" {
		return ErrReplayRaced
	}
	if err != nil {
		return fmt.Errorf("outbox: replay: %w", err)
	}
	return nil
}

func (f ReplayFrom) args() (pgx.StrictNamedArgs, error) {
	args := pgx.StrictNamedArgs{"since": nil, "id": nil, "batch": nil}
	given := 0
	if !f.Since.IsZero() {
		args["since"] = f.Since
		given++
	}
	if f.FromID != 0 {
		args["id"] = f.FromID
		given++
	}
	if f.Batch != 0 {
		args["batch"] = f.Batch
		given++
	}
	if given != 1 {
		return nil, ErrReplayFrom
	}
	return args, nil
}
