package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// tenant is an argument that reads the context of its statement.
type tenant int

func (n tenant) RewriteQuery(_ context.Context, _ *pgx.Conn, sql string, _ []any) (string, []any, error) {
	return sql, []any{int(n)}, nil
}

// odd is what a call does in the place of insert, or around it, that a pipeline
// cannot serve.
var odd = map[string]func(ctx context.Context, tx pgx.Tx, n int) error{
	"a second statement": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, `SELECT 1`)
		return errors.Join(insert(ctx, tx, n), err)
	},
	"a second query": func(ctx context.Context, tx pgx.Tx, n int) error {
		rows, _ := tx.Query(ctx, `SELECT 1`)
		_, err := pgx.CollectRows(rows, pgx.RowTo[int])
		return errors.Join(insert(ctx, tx, n), err)
	},
	"a second row": func(ctx context.Context, tx pgx.Tx, n int) error {
		return errors.Join(insert(ctx, tx, n), tx.QueryRow(ctx, `SELECT 1`).Scan(nil))
	},
	"a savepoint": func(ctx context.Context, tx pgx.Tx, n int) error {
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return insert(ctx, tx, n) })
	},
	"a batch": func(ctx context.Context, tx pgx.Tx, n int) error {
		var b pgx.Batch
		b.Queue(didSQL, n)
		return tx.SendBatch(ctx, &b).Close()
	},
	"a batch's row": func(ctx context.Context, tx pgx.Tx, n int) error {
		var b pgx.Batch
		b.Queue(didSQL, n)
		results := tx.SendBatch(ctx, &b)
		return errors.Join(results.QueryRow().Scan(&n), results.Close())
	},
	"a copy": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"did"}, []string{"n"}, pgx.CopyFromRows([][]any{{n}}))
		return err
	},
	"a prepared statement": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Prepare(ctx, "did", didSQL)
		_, execErr := tx.Exec(ctx, "did", n)
		return errors.Join(err, execErr)
	},
	"its connection": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Conn().Exec(ctx, didSQL, n)
		return err
	},
	"a large object": func(ctx context.Context, tx pgx.Tx, n int) error {
		objects := tx.LargeObjects()
		_, err := objects.Create(ctx, 0)
		return errors.Join(insert(ctx, tx, n), err)
	},
	"a context of its own": func(ctx context.Context, tx pgx.Tx, n int) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return insert(ctx, tx, n)
	},
	"a protocol of its own": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, didSQL, pgx.QueryExecModeSimpleProtocol, n)
		return err
	},
	"a rewriter of its own": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, didSQL, tenant(n))
		return err
	},
	"formats of its own": func(ctx context.Context, tx pgx.Tx, n int) error {
		return tx.QueryRow(ctx, didSQL, pgx.QueryResultFormats{pgx.TextFormatCode}, n).Scan(&n)
	},
	"two statements in one string": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, fmt.Sprintf(`SELECT 1; INSERT INTO did (n) VALUES (%d)`, n))
		return err
	},
	"something else": func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, fmt.Sprintf(`DO 'BEGIN INSERT INTO did (n) VALUES (%d); END'`, n))
		return err
	},
	"time before its statement": func(ctx context.Context, tx pgx.Tx, n int) error {
		time.Sleep(batchTime + 10*time.Millisecond)
		return insert(ctx, tx, n)
	},
	"time after it": func(ctx context.Context, tx pgx.Tx, n int) error {
		defer time.Sleep(batchTime + 10*time.Millisecond)
		return insert(ctx, tx, n)
	},
}

func TestPipeline_LeavesToSingleCallsWhatItCannotServe(t *testing.T) {
	t.Parallel()
	for name, odd := range odd {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
			p, h := runIn(t, tx, 10, func(ctx context.Context, tx pgx.Tx, n int) error {
				if n == 5 {
					return odd(ctx, tx, n)
				}
				return insert(ctx, tx, n)
			})
			if got := did(t, tx); !slices.Equal(got, upTo(10)) || len(p.failed) > 0 {
				t.Errorf("effects %v, want those of all in order; failed: %v", got, failures(p))
			}
			if n := h.streak.calls.Load(); n >= 0 {
				t.Errorf("it may go on in pipelines: %d calls", n)
			}
		})
	}
}

// A handler of such calls never gets to a pipeline.
func TestStreak_CountsNoCallThatAPipelineCannotServe(t *testing.T) {
	t.Parallel()
	for name, odd := range odd {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
			_, h := runIn(t, tx, 1, odd)
			if n := h.streak.calls.Load(); n != 0 {
				t.Errorf("%d calls counted", n)
			}
		})
	}
}

func TestIsPlain_TellsOneStatementFromAllElse(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		"INSERT INTO a VALUES ($1)":                               true,
		" \n update a SET b = $1;\n":                              true,
		"-- name: AddOrder :one\nINSERT INTO a VALUES ($1)":       true,
		"-- one; two\nSELECT $1":                                  false, // not looked into
		"/* by hand */ -- twice\n\tWITH x AS (SELECT $1) TABLE x": true,
		"/* unended SELECT $1":                                    false,
		"-- only":                                                 false,
		"":                                                        false,
		"SELECT":                                                  false,
		"SELECT $1; COMMIT":                                       false,
		"COMMIT":                                                  false,
		"CALL work($1)":                                           false,
	} {
		if got := isPlain(sql, []any{1}); got != want {
			t.Errorf("isPlain(%q) = %v", sql, got)
		}
		if isPlain(sql, nil) {
			t.Errorf("isPlain(%q) without arguments", sql)
		}
	}
}
