package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
)

type order struct {
	ID    string `json:"id"`
	Total int64  `json:"total"`
}

// An effect in the database: it happens exactly once.
func ExampleHandleTx() {
	bookOrder := inbox.HandleTx("jobs.orders.placed",
		func(ctx context.Context, tx pgx.Tx, msg inbox.Message[order]) (none, error) {
			if msg.Payload.Total < 0 {
				return none{}, inbox.Permanent(errors.New("total is negative"))
			}
			_, err := tx.Exec(ctx, `UPDATE revenue SET total = total + $1`, msg.Payload.Total)
			return none{}, err
		})
	_ = bookOrder
}

// Many messages, one statement.
func ExampleHandleBatch() {
	store := inbox.HandleBatch("jobs.readings",
		func(ctx context.Context, tx pgx.Tx, msgs []inbox.Message[order]) ([]none, error) {
			rows := make([][]any, len(msgs))
			for i, m := range msgs {
				rows[i] = []any{m.Payload.ID, m.Payload.Total}
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"readings"}, []string{"id", "total"}, pgx.CopyFromRows(rows))
			return make([]none, len(msgs)), err
		})
	_ = store
}

// An effect outside the database: it may happen twice, and the key tells the
// other side.
func ExampleHandle() {
	charge := inbox.Handle("jobs.charge",
		func(ctx context.Context, msg inbox.Message[[]byte]) (string, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://pay.example/charges", bytes.NewReader(msg.Payload))
			if err != nil {
				return "", inbox.Permanent(err)
			}
			req.Header.Set("Idempotency-Key", msg.IdempotencyKey())
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return "", err
			}
			if err := resp.Body.Close(); err != nil {
				return "", err
			}
			if resp.StatusCode == http.StatusTooManyRequests {
				return "", inbox.RetryAfter(time.Minute, fmt.Errorf("charge: %s", resp.Status))
			}
			return resp.Header.Get("Location"), nil
		})
	_ = charge
}

// A handler that is a function in the database, called once for a whole batch.
func ExampleSQLFunction() {
	const migration = `
CREATE FUNCTION app.book_order(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	UPDATE revenue SET total = total + (m.payload->>'total')::bigint
	RETURNING json_build_object('total', total)
$$`
	bookOrder := inbox.SQLFunction("jobs.orders.placed", "app.book_order")
	_, _ = migration, bookOrder
}
