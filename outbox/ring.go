package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ring keeps the outbox small: it empties the children whose messages are all
// published, confirmed if somebody confirms, and past their retention, and prunes the ledger behind them. TRUNCATE
// leaves no dead tuples, and no INSERT waits for it longer than 50 ms.
type ring struct {
	conn      *pgx.Conn
	retention time.Duration
	confirm   *confirmation
	log       *slog.Logger
}

// turn does what is due.
func (r *ring) turn(ctx context.Context) error {
	last, err := lastID(ctx, r.conn)
	if err != nil {
		return err
	}
	live := lapOf(last)
	for lap := max(0, live-children+1); lap < live; lap++ {
		// The child after the live one is about to be filled again. At more than
		// seven children a retention its turn comes before its time.
		crowded := lap == live-children+1 && last&(1<<childBits-1) > 1<<(childBits-2)
		if err := r.empty(ctx, lap, crowded); err != nil {
			return fmt.Errorf("empty child %d: %w", lap%children, err)
		}
	}
	if err := r.moveOn(ctx, live); err != nil {
		return fmt.Errorf("move on to next child: %w", err)
	}
	return r.prune(ctx)
}

// pastSQL asks whether the child has rows, and whether ids beyond the lap were
// published longer ago than the retention, by a batch up to $3, the last that is
// confirmed: every row of the lap is older still.
const pastSQL = `
SELECT pg_relation_size('jetbox.outbox_%d') > 0, EXISTS (
	SELECT FROM jetbox.relay_batch
	WHERE last_id > $1 AND published_at < now() - $2::interval AND seq <= $3)`

func (r *ring) empty(ctx context.Context, lap int64, crowded bool) error {
	var filled, past bool
	end := (lap+1)<<childBits - 1
	err := r.conn.QueryRow(ctx, fmt.Sprintf(pastSQL, lap%children), end, r.retention, r.confirm.upTo()).Scan(&filled, &past)
	if err != nil {
		return fmt.Errorf("look up age: %w", err)
	}
	if !filled || (!past && !crowded) {
		return nil
	}
	if !past {
		r.log.LogAttrs(ctx, slog.LevelWarn, "outbox holds more than it can keep, emptying a child before its retention is over or its messages are confirmed")
	}
	return r.truncate(ctx, lap%children)
}

const (
	// An INSERT into the child queues behind our wait for its lock, and all else
	// while we have it. Without statistics Postgres takes a third of the child for
	// pending, and would read all of it to find none.
	quicklySQL = `
SELECT set_config('lock_timeout', '50ms', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`
	// Nobody can be writing to the child while we hold this.
	lockChildSQL = `LOCK TABLE jetbox.outbox_%d IN ACCESS EXCLUSIVE MODE`
	// A late writer may have put a row with an old id there since.
	pendingSQL = `
SELECT coalesce((
	SELECT b.prev_snap IS NOT NULL
		OR EXISTS (SELECT FROM jetbox.outbox_%[1]d WHERE xid >= pg_snapshot_xmax(b.snap))
		OR EXISTS (SELECT FROM jetbox.outbox_%[1]d WHERE xid = ANY (ARRAY (SELECT pg_snapshot_xip(b.snap))))
	FROM jetbox.relay_batch b
	ORDER BY seq DESC
	LIMIT 1), true)`
	truncateSQL = `TRUNCATE jetbox.outbox_%d`
)

// truncate empties a child unless it holds a message that is not published. A
// reader in the way is not waited for: the next turn tries again.
func (r *ring) truncate(ctx context.Context, child int64) error {
	err := pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, quicklySQL); err != nil {
			return fmt.Errorf("bound the time: %w", err)
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(lockChildSQL, child)); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		var pending bool
		if err := tx.QueryRow(ctx, fmt.Sprintf(pendingSQL, child)).Scan(&pending); err != nil {
			return fmt.Errorf("look for pending messages: %w", err)
		}
		if pending {
			return nil
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(truncateSQL, child)); err != nil {
			return fmt.Errorf("truncate: %w", err)
		}
		r.log.LogAttrs(ctx, slog.LevelInfo, "child of the outbox emptied", slog.Int64("child", child))
		return nil
	})
	if isLocked(err) {
		return nil
	}
	return err
}

// isLocked reports that another's lock was not waited for any longer.
func isLocked(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "55P03"
}

// moveOnSQL jumps to the next child when the live one holds messages older than
// a quarter of the retention, so that a quiet outbox is emptied too. A jump of a
// sequence must not meet a nextval on the way, hence the distance; and the next
// child must be empty, or two laps would share it.
const moveOnSQL = `
SELECT setval('jetbox.outbox_id_seq', @next, false)
FROM jetbox.outbox_id_seq
WHERE last_value < @next - (1 << 20)
	AND pg_relation_size('jetbox.outbox_%d') = 0
	AND EXISTS (SELECT FROM jetbox.relay_batch
		WHERE last_id >= @first AND published_at < now() - @age::interval)`

func (r *ring) moveOn(ctx context.Context, live int64) error {
	_, err := r.conn.Exec(ctx, fmt.Sprintf(moveOnSQL, (live+1)%children), pgx.StrictNamedArgs{
		"first": live << childBits, "next": (live + 1) << childBits, "age": r.retention / 4,
	})
	return err
}

// pruneSQL keeps twice the retention of the ledger, from where a replay could
// start, and always its newest row. A bounded bite each turn.
const pruneSQL = `
DELETE FROM jetbox.relay_batch
WHERE seq IN (SELECT seq FROM jetbox.relay_batch ORDER BY seq LIMIT 50000)
	AND published_at < now() - 2 * $1::interval
	AND seq < (SELECT max(seq) FROM jetbox.relay_batch)`

func (r *ring) prune(ctx context.Context) error {
	if _, err := r.conn.Exec(ctx, pruneSQL, r.retention); err != nil {
		return fmt.Errorf("prune ledger: %w", err)
	}
	return nil
}
