package inbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

var (
	// ErrSettled reports a message that a consumer has processed already.
	ErrSettled = errors.New("inbox: message is already processed")
	// ErrForgotten reports a message so old that the inbox has no place for it
	// any more; workers refuse it anyway.
	ErrForgotten = errors.New("inbox: message is older than the inbox remembers")
)

// querier is a connection, a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const oldestSQL = `SELECT min(w) FROM jetbox.inbox_weeks() AS w`

// Oldest returns the lowest UUIDv7 that the inbox remembers. Workers refuse one
// that is lower: nothing would tell whether it has been processed.
func Oldest(ctx context.Context, db querier) (id uuid.UUID, err error) {
	rows, err := db.Query(ctx, oldestSQL)
	if err != nil {
		return id, fmt.Errorf("inbox: look for the oldest week: %w", err)
	}
	week, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[*time.Time])
	if err != nil || week == nil {
		return id, err
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(week.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6], id[8] = 0x70, 0x80
	return id, nil
}

// cancelSQL takes the message's place in the inbox: a worker that meets it acks
// without running, and one that runs at this moment cannot commit. If such a
// one commits first, this fails on the primary key.
const cancelSQL = `
INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
SELECT DISTINCT $1::uuid, consumer, $2::date, $3::text FROM unnest($4::text[]) AS c (consumer) ORDER BY consumer`

// Cancel makes consumers skip a message, as part of tx. What a handler has
// already done outside of Postgres it cannot take back.
func Cancel(ctx context.Context, tx pgx.Tx, id uuid.UUID, subject string, consumers ...string) error {
	if len(consumers) == 0 {
		return errors.New("inbox: cancel: name at least one consumer")
	}
	_, err := tx.Exec(ctx, cancelSQL, pgtype.UUID{Bytes: id, Valid: true}, dayOf(id), subject, consumers)
	e, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case e != nil && e.Code == "23505":
		return ErrSettled
	case e != nil && e.Code == "23514": // no partition
		return ErrForgotten
	}
	if err != nil {
		return fmt.Errorf("inbox: cancel: %w", err)
	}
	return nil
}
