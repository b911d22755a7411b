package inbox

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
)

// Handler processes the messages of one subject. Make one with HandleTx,
// HandleBatch, SQLFunction or Handle.
type Handler struct {
	subject string
	limits  Limits
	decode  func(*delivery) (any, error)

	// One of these is set. run and runSet have all their effects in tx; prepare
	// looks in the database and makes runSet, when a worker starts.
	run     func(ctx context.Context, tx pgx.Tx, d *delivery) error
	runSet  setFunc
	prepare func(context.Context, beginner) (setFunc, error)
	call    func(ctx context.Context, d *delivery) error

	streak *streak // of run
	fences bool    // runSet makes savepoints
}

// beginner is a pool or a transaction.
type beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// setFunc processes ds. One that fences makes a savepoint after each limit of
// more than that.
type setFunc func(ctx context.Context, tx pgx.Tx, ds []*delivery, limit int) error

// HandleTx processes messages whose subject matches with fn. What fn writes
// through tx happens exactly once: tx also records the message as processed,
// with R as its JSON result, and belongs to the worker, which shares it between
// many messages. A fn that fails is undone, with the few that ran before it since
// a savepoint: those run again, and the message that failed is retried in a
// transaction apart from first deliveries.
//
// Where calls turn out to make one statement each and to be quick, many share a
// round trip: while one waits for its answer, fn is called for the next messages,
// still one call at a time, and Postgres gets their statements in the order of
// the messages. A call that makes a second statement or is late ends that: the
// others get context.Canceled from tx, and all run again one by one. So a call that
// holds a mutex while it waits for Postgres is blocked by the next for a quarter of
// a second, now and then.
//
// T is decoded from JSON; a T of []byte or json.RawMessage gets the bytes.
func HandleTx[T, R any](subject string, fn func(ctx context.Context, tx pgx.Tx, msg Message[T]) (R, error)) Handler {
	return Handler{
		subject: subject, decode: decode[T], streak: &streak{},
		run: func(ctx context.Context, tx pgx.Tx, d *delivery) error {
			result, err := fn(ctx, tx, newMessage[T](d))
			if err == nil {
				d.result, err = encode(result)
			}
			return err
		},
	}
}

// HandleBatch is HandleTx for many messages in one call, to be written with one
// statement. fn returns one result for each message, in their order. After an
// error it is called again with fewer and fewer of them, until it is known which
// message failed.
func HandleBatch[T, R any](subject string, fn func(ctx context.Context, tx pgx.Tx, msgs []Message[T]) ([]R, error)) Handler {
	return Handler{
		subject: subject, decode: decode[T],
		runSet: func(ctx context.Context, tx pgx.Tx, ds []*delivery, _ int) error {
			msgs := make([]Message[T], len(ds))
			for i, d := range ds {
				msgs[i] = newMessage[T](d)
			}
			results, err := fn(ctx, tx, msgs)
			if err != nil {
				return err
			}
			return setResults(ds, results)
		},
	}
}

func setResults[R any](ds []*delivery, results []R) error {
	if len(results) != len(ds) {
		return Permanent(fmt.Errorf("handler returned %d results for %d messages", len(results), len(ds)))
	}
	for i, d := range ds {
		var err error
		if d.result, err = encode(results[i]); err != nil {
			return err
		}
	}
	return nil
}

// Handle processes messages whose subject matches with fn, for effects outside
// the database: at least once, many at a time, each to be made harmless twice
// with the message's IdempotencyKey. A message the inbox has already is not
// handed out again; fn's result is recorded after it returns.
func Handle[T, R any](subject string, fn func(ctx context.Context, msg Message[T]) (R, error)) Handler {
	return Handler{
		subject: subject, decode: decode[T],
		call: func(ctx context.Context, d *delivery) error {
			result, err := fn(ctx, newMessage[T](d))
			if err == nil {
				d.result, err = encode(result)
			}
			return err
		},
	}
}

// inTransaction is h as one function over messages.
func (h *Handler) inTransaction(ctx context.Context, tx pgx.Tx, ds []*delivery, limit int) error {
	switch {
	case h.runSet != nil:
		return h.runSet(ctx, handlerTx{tx}, ds, limit)
	case len(ds) > 1:
		return h.pipeline(ctx, tx, ds)
	}
	return h.runOne(ctx, tx, ds[0])
}

// most is how many messages one call of h may get where limit are wanted.
func (h *Handler) most(limit int) int {
	switch {
	case h.fences:
		return math.MaxInt
	case h.runSet != nil:
		return limit
	case h.streak.long():
		return min(limit, pipelined)
	}
	return 1
}
