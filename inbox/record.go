package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

const knownSQL = `SELECT id, state FROM jetbox.known($1, $2, $3)`

// known is what the database has of some deliveries already. Tried are those
// that failed before, under whatever delivery.
type known struct {
	done, dead, tried map[uuid.UUID]bool
}

// askKnown queues the question what is known of ds; the answer is there once b's
// results have been read.
func askKnown(b *pgx.Batch, consumer string, ds []*delivery) known {
	k := known{map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}}
	days := make([]pgtype.Date, len(ds))
	for i, d := range ds {
		days[i] = d.day
	}
	in := map[string]map[uuid.UUID]bool{"done": k.done, "dead": k.dead, "tried": k.tried}
	b.Queue(knownSQL, consumer, ids(ds), days).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var state string
		_, err := pgx.ForEachRow(rows, []any{&id, &state}, func() error { in[state][id] = true; return nil })
		return err
	})
	return k
}

// remind notes which of ds were tried before although they count as first
// deliveries, as copies do that were published again. It reports whether any were.
func (k known) remind(ds []*delivery) (any bool) {
	for _, d := range ds {
		if k.tried[d.env.ID] && !d.again() {
			d.tried, any = true, true
		}
	}
	return any
}

// split separates what is processed and what is dead from the rest.
func (k known) split(ds []*delivery) (done, dead, rest []*delivery) {
	for _, d := range ds {
		switch {
		case k.done[d.env.ID]:
			done = append(done, d)
		case k.dead[d.env.ID]:
			dead = append(dead, d)
		default:
			rest = append(rest, d)
		}
	}
	return done, dead, rest
}

// recordSQL is the one statement that makes a message processed. There is no
// ON CONFLICT: it waits for a concurrent duplicate to end, and if that one
// commits, this transaction must not.
const recordSQL = `
INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result)
SELECT id, $1, day, subject, result::json
FROM unnest($2::uuid[], $3::date[], $4::text[], $5::text[]) AS k (id, day, subject, result)`

// errDuplicate reports a message whose effects are already committed.
var errDuplicate = errors.New("already processed")

// record queues the writing of the IDs and results of ds, in place of their
// attempts.
func record(b *pgx.Batch, consumer string, ds []*delivery) {
	if len(ds) == 0 {
		return
	}
	b.Queue(recordSQL, recordArgs(consumer, ds)...)
	if again := withHistory(ds); len(again) > 0 {
		b.Queue(forgetSQL, consumer, ids(again))
	}
}

func recordArgs(consumer string, ds []*delivery) []any {
	n := len(ds)
	ids, days := make([]pgtype.UUID, n), make([]pgtype.Date, n)
	subjects, results := make([]string, n), make([]*string, n)
	for i, d := range sorted(ds) {
		ids[i], days[i], subjects[i], results[i] = d.id(), d.day, d.msg.Subject(), d.result
	}
	return []any{consumer, ids, days, subjects, results}
}

// recorded makes errDuplicate of the error by which the inbox says so.
func recorded(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if ok && e.Code == "23505" && e.SchemaName == "jetbox" && strings.HasPrefix(e.TableName, "inbox") {
		return errDuplicate
	}
	return err
}

// unfinished is the error of an attempt that has begun and not ended: what a
// worker leaves behind that dies.
const unfinished = "the worker died, or lost Postgres, during this attempt"

const attemptsSQL = `
SELECT message_id, max(attempt), bool_or(error = $3)
FROM jetbox.failed_attempt WHERE consumer = $1 AND message_id = ANY ($2::uuid[])
GROUP BY message_id`

// askAttempts queues the question how many attempts at ds are on record, and
// whether one of them was not survived. The answer is in ds.
func askAttempts(b *pgx.Batch, consumer string, ds []*delivery) {
	byID := make(map[uuid.UUID]*delivery, len(ds))
	for _, d := range ds {
		d.attempt, d.suspect = 1, false
		byID[d.env.ID] = d
	}
	b.Queue(attemptsSQL, consumer, ids(ds), unfinished).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var n int
		var suspect bool
		_, err := pgx.ForEachRow(rows, []any{&id, &n, &suspect}, func() error {
			byID[id].attempt, byID[id].suspect = n+1, suspect
			return nil
		})
		return err
	})
}

const attemptSQL = `
INSERT INTO jetbox.failed_attempt (message_id, consumer, attempt, error) VALUES ($1, $2, $3, $4)
ON CONFLICT (message_id, consumer, attempt) DO UPDATE SET error = excluded.error, failed_at = excluded.failed_at`

// maxError bounds an error kept with an attempt.
const maxError = 8192

// noteAttempt puts d's attempt on record as one that ended with cause.
func noteAttempt(ctx context.Context, db executor, consumer string, d *delivery, cause string) error {
	if _, err := db.Exec(ctx, attemptSQL, d.id(), consumer, d.attempt, errorText(cause)); err != nil {
		return fmt.Errorf("note attempt: %w", err)
	}
	return nil
}

const failuresSQL = `
INSERT INTO jetbox.failed_attempt (message_id, consumer, attempt, error)
SELECT id, $1, 1 + coalesce((SELECT max(f.attempt) FROM jetbox.failed_attempt f WHERE f.message_id = k.id AND f.consumer = $1), 0), error
FROM unnest($2::uuid[], $3::text[]) AS k (id, error)
RETURNING message_id, attempt`

// noteFailures puts the failures of ds on record as part of tx, and sets which
// attempts they were.
func noteFailures(ctx context.Context, tx pgx.Tx, consumer string, ds []*delivery) error {
	if len(ds) == 0 {
		return nil
	}
	ids, errs := make([]pgtype.UUID, len(ds)), make([]string, len(ds))
	byID := make(map[uuid.UUID]*delivery, len(ds))
	for i, d := range sorted(ds) {
		ids[i], errs[i] = d.id(), errorText(d.failure.Error())
		byID[d.env.ID] = d
	}
	rows, err := tx.Query(ctx, failuresSQL, consumer, ids, errs)
	if err == nil {
		var id uuid.UUID
		var n int
		_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { byID[id].attempt = n; return nil })
	}
	if err != nil {
		return fmt.Errorf("note failures: %w", err)
	}
	return nil
}

func errorText(cause string) string { return deadletter.Text(cause[:min(len(cause), maxError)]) }

// executor is a pool or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

const takeBackSQL = `
DELETE FROM jetbox.failed_attempt WHERE message_id = $1 AND consumer = $2 AND attempt = $3 AND error = $4`

// takeBack removes the note of an attempt that the worker itself cut short.
func takeBack(ctx context.Context, db *pgxpool.Pool, consumer string, d *delivery) error {
	if _, err := db.Exec(ctx, takeBackSQL, d.id(), consumer, d.attempt, unfinished); err != nil {
		return fmt.Errorf("take back attempt: %w", err)
	}
	return nil
}

const forgetSQL = `DELETE FROM jetbox.failed_attempt WHERE consumer = $1 AND message_id = ANY ($2::uuid[])`

// forget removes the attempts at messages that are done or dead.
func forget(ctx context.Context, db executor, consumer string, ds []*delivery) error {
	if _, err := db.Exec(ctx, forgetSQL, consumer, ids(ds)); err != nil {
		return fmt.Errorf("forget attempts: %w", err)
	}
	return nil
}

const failedSQL = `
SELECT attempt, failed_at, error FROM jetbox.failed_attempt
WHERE message_id = $1 AND consumer = $2 ORDER BY attempt`

// failed returns the attempts on record, oldest first.
func failed(ctx context.Context, tx pgx.Tx, consumer string, d *delivery) ([]deadletter.Attempt, error) {
	rows, err := tx.Query(ctx, failedSQL, d.id(), consumer)
	if err != nil {
		return nil, fmt.Errorf("failed attempts: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a deadletter.Attempt, err error) {
		return a, row.Scan(&a.Attempt, &a.At, &a.Error)
	})
	if err != nil {
		return nil, fmt.Errorf("failed attempts: %w", err)
	}
	return list, nil
}

const maintainSQL = `SELECT first_day, end_day FROM jetbox.maintain_inbox($1, $2)`

// pruneSQL drops what outlived its use: attempts at messages that never came
// back, and foreign IDs, which carry no time to drop a partition by.
const (
	pruneAttemptsSQL = `DELETE FROM jetbox.failed_attempt WHERE failed_at < now() - $1::interval`
	pruneForeignSQL  = `DELETE FROM jetbox.inbox WHERE day = '-infinity' AND processed_at < now() - $1::interval`
)

// ahead is how far beyond today partitions are made.
const ahead = 14 * 24 * time.Hour

// maintain makes and drops partitions, and returns the first day the inbox
// covers and the first it does not.
func maintain(ctx context.Context, db *pgxpool.Pool, retention time.Duration) (first, end time.Time, err error) {
	if err := db.QueryRow(ctx, maintainSQL, retention, ahead).Scan(&first, &end); err != nil {
		return first, end, fmt.Errorf("partitions: %w", err)
	}
	for _, sql := range []string{pruneAttemptsSQL, pruneForeignSQL} {
		if _, err := db.Exec(ctx, sql, retention); err != nil {
			return first, end, fmt.Errorf("prune: %w", err)
		}
	}
	return first, end, nil
}
