package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// awayError is a failure that is no fault of the message: Postgres cannot be
// reached, has broken off, or has not said how a COMMIT ended.
type awayError struct {
	err    error
	begun  bool // the transaction had begun: the message may have a part in it
	broken bool // the message may have done it, and do it each time
}

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

func isAway(err error) bool {
	_, ok := errors.AsType[*awayError](err)
	return ok
}

// away marks err as no fault of a message: it is about the worker's own SQL.
func away(err error) error {
	if err == nil {
		return nil
	}
	return &awayError{err: err}
}

// inTx runs fn in a transaction and commits it; ask, which may be nil, queues
// questions that travel with BEGIN and are answered when fn runs, and what fn
// queues in last travels with COMMIT. What is no fault of fn comes back as an
// awayError: after one whose transaction had begun, fn's effects may or may not
// have been committed.
func inTx(ctx context.Context, db *pgxpool.Pool, ask func(*pgx.Batch), fn func(tx pgx.Tx, last *pgx.Batch) error) error {
	conn, err := db.Acquire(ctx)
	if err != nil {
		return away(fmt.Errorf("connect: %w", err))
	}
	defer conn.Release()
	teachUUID(conn.Conn())
	tx, err := begin(ctx, conn, ask)
	if err != nil {
		return away(fmt.Errorf("begin: %w", err))
	}
	var last pgx.Batch
	err = fn(tx, &last)
	switch {
	case errors.Is(err, errDeaf):
		return errors.Join(err, abandon(conn))
	case err != nil:
		return undo(ctx, conn, tx, err)
	}
	return commit(ctx, conn, tx, &last)
}

// begin leaves an error's transaction to Release, which closes its connection.
func begin(ctx context.Context, conn *pgxpool.Conn, ask func(*pgx.Batch)) (pgx.Tx, error) {
	if ask == nil {
		return conn.Begin(ctx)
	}
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{})
	ask(&b)
	results := conn.SendBatch(ctx, &b)
	return results.Tx(), results.Close()
}

// abandon cuts the connection under a handler that is still running: the
// server rolls back, and nobody else gets to use the connection.
func abandon(conn *pgxpool.Conn) error {
	return conn.Hijack().PgConn().Conn().Close()
}

// undo rolls back after err, and tells a broken connection from a failure.
func undo(ctx context.Context, conn *pgxpool.Conn, tx pgx.Tx, err error) error {
	broken := conn.Conn().IsClosed()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if conn.Conn().PgConn().TxStatus() != 'I' {
		if rollback := tx.Rollback(ctx); rollback != nil && !broken {
			err = errors.Join(err, fmt.Errorf("rollback: %w", rollback))
		}
	}
	if !errors.Is(err, errHandlerTimeout) && (broken || transient(err)) {
		return &awayError{err, true, broken || !passes(err)}
	}
	return err
}

// commit ends tx with last and COMMIT, which Postgres skips when one of last
// fails. It reports a failure as the transaction's own only where Postgres says
// that it has rolled back. Anything else is unknown: pgx may call an error safe
// to retry although the transaction has committed.
func commit(ctx context.Context, conn *pgxpool.Conn, tx pgx.Tx, last *pgx.Batch) error {
	last.Queue(`COMMIT`).Exec(func(done pgconn.CommandTag) error {
		if done.String() == "ROLLBACK" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	err := tx.SendBatch(ctx, last).Close()
	if err == nil {
		return nil
	}
	_, told := errors.AsType[*pgconn.PgError](err)
	err = fmt.Errorf("record and commit: %w", recorded(err))
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return err
	case told:
		return undo(ctx, conn, tx, err)
	}
	return &awayError{err, true, true}
}

// transient reports an error by which Postgres says that the same transaction
// may succeed later.
func transient(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return false
	case passes(err):
		return true
	case e.Code == "53400", e.Code == "58P01": // over a configured limit, no such file: waiting helps neither
		return false
	}
	return slices.Contains([]string{"08", "53", "58"}, e.Code[:2]) // connection, resources, system
}

// passes reports a transient error that is never one message's doing, each time:
// a function may fail to reach another server, or need too many locks.
func passes(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{
		"40001", "40P01", // serialization failure, deadlock
		readOnly,
		"53100", "53300", // the disk is full, too many connections
		"57P01", "57P02", "57P03", "57P05", // the server is ending or starting
	}, e.Code)
}

// readOnly is the SQLSTATE of a write on a standby, as a primary is after a
// failover.
const readOnly = "25006"

var (
	errTxOwned = errors.New("inbox: the transaction belongs to the worker, which commits it: use Begin for a savepoint")
	errTxEnded = errors.New("the handler ended the worker's transaction itself: its effects may be committed without the message's ID")
	errTxBusy  = errors.New("the handler returned success and left rows open: read or close them")
	errTxLeft  = errors.New("the handler returned success from a transaction that had failed")
)

// handlerTx is the worker's transaction as a handler sees it.
type handlerTx struct{ pgx.Tx }

// Commit refuses.
func (handlerTx) Commit(context.Context) error { return errTxOwned }

// Rollback refuses: return an error instead.
func (handlerTx) Rollback(context.Context) error { return errTxOwned }

// intact reports what a handler did to tx that it may not do.
func intact(tx pgx.Tx) error {
	switch tx.Conn().PgConn().TxStatus() {
	case 'I':
		return Permanent(errTxEnded)
	case 'E':
		return errTxLeft
	}
	if tx.Conn().PgConn().IsBusy() {
		return errTxBusy
	}
	return nil
}
