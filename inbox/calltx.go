package inbox

import (
	"context"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// callTx is the worker's transaction as one call of a HandleTx function sees it.
// It counts the call's statements; what a pipeline cannot serve counts as many.
// In a pipeline the call waits with its first, and ends the pipeline with another.
type callTx struct {
	handlerTx
	ctx        context.Context // the call's
	call       *call           // of a pipeline, or nil
	statements int
}

// many is what counts for something that no pipeline can serve.
const many = 2

// ask returns the answer to a call's statement, or none if the call makes it itself.
func (t *callTx) ask(ctx context.Context, sql string, args []any) (rows pgx.Rows, err error) {
	if t.statements++; ctx.Done() != t.ctx.Done() || !isPlain(sql, args) {
		t.statements = many
	}
	if t.call == nil {
		return nil, nil
	}
	return t.call.ask(sql, args)
}

// refuse counts what no pipeline can serve, and ends the pipeline.
func (t *callTx) refuse() error {
	t.statements = many
	if t.call == nil {
		return nil
	}
	_, err := t.call.ask("", nil)
	return err
}

// isPlain says whether a pipeline can send sql and read its answer: it is one
// statement, does not end the transaction, and asks for no protocol of its own.
func isPlain(sql string, args []any) bool {
	if len(args) > 0 {
		switch args[0].(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			return false
		}
	}
	sql = strings.Trim(sql, " \t\r\n;")
	if strings.Contains(sql, ";") { // the simple protocol takes several in one string
		return false
	}
	for _, verb := range []string{"INSERT", "UPDATE", "DELETE", "SELECT", "MERGE", "WITH"} {
		if len(sql) > len(verb) && strings.EqualFold(sql[:len(verb)], verb) {
			return true
		}
	}
	return false
}

func (t *callTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	rows, err := t.ask(ctx, sql, args)
	switch {
	case err != nil:
		return pgconn.CommandTag{}, err
	case rows == nil:
		return t.handlerTx.Exec(ctx, sql, args...)
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

func (t *callTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := t.ask(ctx, sql, args)
	switch {
	case err != nil:
		return noRows{err: err}, err
	case rows == nil:
		return t.handlerTx.Query(ctx, sql, args...)
	}
	return rows, rows.Err()
}

func (t *callTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.ask(ctx, sql, args)
	switch {
	case err != nil:
		return noRows{err: err}
	case rows == nil:
		return t.handlerTx.QueryRow(ctx, sql, args...)
	}
	return firstRow{rows}
}

func (t *callTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.refuse(); err != nil {
		return nil, err
	}
	return t.handlerTx.Begin(ctx)
}

func (t *callTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	if err := t.refuse(); err != nil {
		return 0, err
	}
	return t.handlerTx.CopyFrom(ctx, table, columns, src)
}

func (t *callTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.refuse(); err != nil {
		return noResults{err: err}
	}
	return t.handlerTx.SendBatch(ctx, b)
}

func (t *callTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.refuse(); err != nil {
		return nil, err
	}
	return t.handlerTx.Prepare(ctx, name, sql)
}

// Conn and LargeObjects have no way to say that the pipeline has ended: they end
// the call.
func (t *callTx) Conn() *pgx.Conn {
	if t.refuse() != nil {
		runtime.Goexit()
	}
	return t.handlerTx.Conn()
}

func (t *callTx) LargeObjects() pgx.LargeObjects {
	if t.refuse() != nil {
		runtime.Goexit()
	}
	return t.handlerTx.LargeObjects()
}

// firstRow is the answer to QueryRow.
type firstRow struct{ rows pgx.Rows }

func (r firstRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// noRows are the answer to a query when the pipeline has ended.
type noRows struct {
	pgx.Rows
	err error
}

func (noRows) Close()                        {}
func (noRows) Next() bool                    { return false }
func (noRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
func (r noRows) Err() error                  { return r.err }
func (r noRows) Scan(...any) error           { return r.err }

// noResults are the answer to a batch then.
type noResults struct {
	pgx.BatchResults
	err error
}

func (r noResults) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, r.err }
func (r noResults) Query() (pgx.Rows, error)         { return noRows{err: r.err}, r.err }
func (r noResults) QueryRow() pgx.Row                { return noRows{err: r.err} }
func (r noResults) Close() error                     { return r.err }
