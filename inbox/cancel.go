package inbox

import (
	"context"
	"errors"
	"fmt"

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

const remembersSQL = `SELECT coalesce($1::date = '-infinity' OR $1::date >= min(w), true) FROM jetbox.inbox_weeks() AS w`

// Remembers reports whether the inbox goes back as far as a message's ID. Workers
// refuse one that is older: nothing would tell whether it has been processed.
func Remembers(ctx context.Context, tx pgx.Tx, id uuid.UUID) (yes bool, err error) {
	if err := tx.QueryRow(ctx, remembersSQL, dayOf(id)).Scan(&yes); err != nil {
		return false, fmt.Errorf("inbox: look for the oldest week: %w", err)
	}
	return yes, nil
}

// cancelSQL takes the message's place in the inbox: a worker that meets it acks
// without running, and one that runs at this moment cannot commit. If such a
// one commits first, this fails on the primary key.
const cancelSQL = `
INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
SELECT $1, consumer, $2, $3 FROM unnest($4::text[]) AS c (consumer) ORDER BY consumer`

// Cancel makes consumers skip a message, as part of tx. What a handler has
// already done outside of Postgres it cannot take back.
func Cancel(ctx context.Context, tx pgx.Tx, id uuid.UUID, subject string, consumers ...string) error {
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
