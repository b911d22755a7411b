package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

// Each is one statement, so a row is either scheduled or in the outbox. SKIP
// LOCKED leaves alone what an application is about to cancel.
const (
	moveDueSQL = `
WITH due AS (
	DELETE FROM jetbox.scheduled
	WHERE id = ANY (ARRAY (
		SELECT id FROM jetbox.scheduled
		WHERE run_at <= now()
		ORDER BY run_at, id
		LIMIT $1
		FOR UPDATE SKIP LOCKED))` + intoOutboxSQL
	moveSQL = `
WITH due AS (
	DELETE FROM jetbox.scheduled WHERE id = $1` + intoOutboxSQL
	intoOutboxSQL = `
	RETURNING id, run_at, message_id, subject, key, headers, payload, payload_bytes, content_type)
INSERT INTO jetbox.outbox (message_id, subject, key, headers, payload, payload_bytes, content_type)
SELECT message_id, subject, key, headers, payload, payload_bytes, content_type
FROM due
ORDER BY run_at, id`
)

// dueRows is how many due messages move in one transaction: few enough that
// the rest of the outbox hardly notices.
const dueRows = 2000

// moveDue moves what is due to the outbox. A row that breaks its rules, which
// only gets here past the table's own, as by a restore without triggers, becomes
// a dead letter: else it would be in the way of all that is due later.
func moveDue(ctx context.Context, conn *pgx.Conn) error {
	for {
		tag, err := conn.Exec(ctx, moveDueSQL, dueRows)
		switch {
		case refusal(err) != "":
			err = moveOneByOne(ctx, conn)
		case err == nil && tag.RowsAffected() < dueRows:
			return nil
		}
		if err != nil {
			return fmt.Errorf("move scheduled messages: %w", err)
		}
	}
}

func moveOneByOne(ctx context.Context, conn *pgx.Conn) error {
	for range dueRows {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return moveOne(ctx, tx) })
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const lockDueSQL = `
SELECT id FROM jetbox.scheduled
WHERE run_at <= now()
ORDER BY run_at, id
LIMIT 1
FOR UPDATE SKIP LOCKED`

// moveOne moves or buries the first that is due. It returns pgx.ErrNoRows when
// nothing is.
func moveOne(ctx context.Context, tx pgx.Tx) error {
	var id int64
	if err := tx.QueryRow(ctx, lockDueSQL).Scan(&id); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, moveSQL, id)
		return err
	})
	if reason := refusal(err); reason != "" {
		return buryDue(ctx, tx, id, reason)
	}
	return err
}

// refusal says why the outbox takes a row at no time, for a rule or because a value
// cannot be read; empty where err says no such thing. The text of an error might
// hold part of the row.
func refusal(err error) string {
	if rule := BrokenRule(err); rule != "" {
		return rule
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23")) {
		return "SQLSTATE " + e.Code
	}
	return ""
}

// BrokenRule is the constraint by which the outbox refused a message, as err of its
// INSERT says; empty where err says no such thing.
func BrokenRule(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "23514" {
		return e.ConstraintName
	}
	return ""
}

const takeDueSQL = `DELETE FROM jetbox.scheduled WHERE id = $1 RETURNING ` + rowColumns

// buryDue makes a dead letter of a scheduled message.
func buryDue(ctx context.Context, tx pgx.Tx, id int64, reason string) error {
	rows, err := tx.Query(ctx, takeDueSQL, binaryFormat, id)
	if err != nil {
		return err
	}
	var a arena
	var b batch
	for rows.Next() {
		r := a.scan(rows.RawValues())
		r.id = 0 // of the other table
		b.bury(&r, errors.New("the outbox refuses it: "+reason))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return deadletter.Insert(ctx, tx, b.dead...)
}
