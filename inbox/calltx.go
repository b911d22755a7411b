package inbox

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"

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
	statements atomic.Int32    // outside one
}

// many is what counts for something that no pipeline can serve.
const many = 2

// ask returns the answer to a call's statement, or none if the call makes it itself.
func (t *callTx) ask(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	plain := ctx.Done() == t.ctx.Done() && isPlain(sql, args)
	switch {
	case t.call != nil:
		return t.call.ask(sql, args, plain)
	case plain:
		t.statements.Add(1)
	default:
		t.statements.Add(many)
	}
	return nil, nil
}

// refuse counts what no pipeline can serve, and ends the pipeline.
func (t *callTx) refuse() error {
	if t.call == nil {
		t.statements.Add(many)
		return nil
	}
	_, err := t.call.ask("", nil, false)
	return err
}

// isPlain says whether a pipeline can send sql and read its answer: it is one
// statement, does not end the transaction, and asks for no protocol of its own.
// Without arguments pgx would send it in another protocol than in a batch.
func isPlain(sql string, args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.NamedArgs, pgx.StrictNamedArgs:
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		return false
	}
	sql = strings.TrimRight(sql, space+";")
	if strings.Contains(sql, ";") { // the simple protocol takes several in one string
		return false
	}
	sql = uncommented(sql)
	for _, verb := range []string{"INSERT", "UPDATE", "DELETE", "SELECT", "MERGE", "WITH"} {
		if len(sql) > len(verb) && strings.EqualFold(sql[:len(verb)], verb) {
			return true
		}
	}
	return false
}

const space = " \t\r\n"

// uncommented is sql from where its first comments end: generated code names its
// queries there.
func uncommented(sql string) string {
	for {
		sql = strings.TrimLeft(sql, space)
		end := "\n"
		switch {
		case strings.HasPrefix(sql, "/*"):
			end = "*/"
		case !strings.HasPrefix(sql, "--"):
			return sql
		}
		_, sql, _ = strings.Cut(sql, end)
	}
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

// Conn and LargeObjects have no way to say that the pipeline has ended, so they
// end the goroutine that asks. A handler that uses them each time is never in one.
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

func (noRows) Close()                                       {}
func (noRows) Next() bool                                   { return false }
func (noRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (noRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (noRows) RawValues() [][]byte                          { return nil }
func (r noRows) Err() error                                 { return r.err }
func (r noRows) Scan(...any) error                          { return r.err }
func (r noRows) Values() ([]any, error)                     { return nil, r.err }

// noResults are the answer to a batch then.
type noResults struct {
	pgx.BatchResults
	err error
}

func (r noResults) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, r.err }
func (r noResults) Query() (pgx.Rows, error)         { return noRows{err: r.err}, r.err }
func (r noResults) QueryRow() pgx.Row                { return noRows{err: r.err} }
func (r noResults) Close() error                     { return r.err }
