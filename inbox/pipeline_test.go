package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/wire"
)

const (
	didTableSQL = `CREATE TABLE did (seq bigserial, n int PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE)`
	didSQL      = `INSERT INTO did (n) VALUES ($1) RETURNING n`
)

// trips counts what a connection sends.
type trips struct{ batches, queries atomic.Int32 }

func (c *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.queries.Add(1)
	return ctx
}

func (c *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.batches.Add(1)
	return ctx
}
func (c *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (c *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
}
func (c *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// beginIn begins a transaction in a database with a table for effects.
func beginIn(t *testing.T, mode pgx.QueryExecMode) (pgx.Tx, *trips) {
	t.Helper()
	cfg := testenv.Database(t).Config()
	seen := &trips{}
	cfg.ConnConfig.DefaultQueryExecMode, cfg.ConnConfig.Tracer = mode, seen
	db, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if _, err := db.Exec(t.Context(), didTableSQL); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // it may have ended
	return tx, seen
}

func deliver(t *testing.T, n int) (ds []*delivery) {
	t.Helper()
	for i := range n {
		m := &nats.Msg{Subject: "n", Data: fmt.Append(nil, i), Header: wire.Encode(wire.Envelope{ID: uuid.Must(uuid.NewV7())})}
		d, err := newDelivery(local{m: m, consumer: "w"})
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	return ds
}

// runIn runs handler for n messages, as one group of a batch.
func runIn(t *testing.T, tx pgx.Tx, n int, handler func(context.Context, pgx.Tx, int) error) (*pass, *Handler) {
	t.Helper()
	h := HandleTx("n", func(ctx context.Context, tx pgx.Tx, m Message[int]) (any, error) {
		return m.Payload, handler(ctx, tx, m.Payload)
	})
	h.limits.Timeout = 2 * batchTime
	ds := deliver(t, n)
	for _, d := range ds {
		d.handler = &h
		var err error
		if d.payload, err = h.decode(d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(t.Context(), savepointSQL); err != nil {
		t.Fatal(err)
	}
	p, err := protect(t.Context(), func(call caller) (*pass, error) {
		p := &pass{tx: tx, call: call, at: &atomic.Pointer[group]{}, todo: []*group{{handler: &h, ds: ds}}, limit: 100}
		return p, p.run(t.Context(), func() bool { return false })
	})
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return p, &h
}

// did lists whose effects are in tx, in the order in which they came about.
func did(t *testing.T, tx pgx.Tx) []int {
	t.Helper()
	rows, _ := tx.Query(t.Context(), `SELECT n FROM did ORDER BY seq`)
	ns, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func upTo(n int) (ns []int) {
	for i := range n {
		ns = append(ns, i)
	}
	return ns
}

func TestPipeline_GivesEachCallItsOwnAnswerInOneTrip(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			tx, seen := beginIn(t, mode)
			queries := seen.queries.Load()
			calls := 0 // by one at a time, or -race says so
			p, _ := runIn(t, tx, pipelined, func(ctx context.Context, tx pgx.Tx, n int) error {
				calls++
				return insert(ctx, tx, n)
			})
			if got := did(t, tx); !slices.Equal(got, upTo(pipelined)) {
				t.Errorf("effects %v, want those of all in order", got)
			}
			for i, d := range messages(p.ran, func(g *group) []*delivery { return g.own }) {
				if d.result == nil || *d.result != fmt.Sprint(i) {
					t.Errorf("result of message %d = %v", i, d.result)
				}
			}
			// The savepoint and what did asks are queries.
			if b, q := seen.batches.Load(), seen.queries.Load()-queries; b != 1 || q != 2 || calls != pipelined {
				t.Errorf("%d calls in %d batches, and %d queries, want %d in 1, and 2", calls, b, q, pipelined)
			}
		})
	}
}

// insert makes one statement in one of the ways that there are, and checks its answer.
func insert(ctx context.Context, tx pgx.Tx, n int) (err error) {
	var got int
	switch n % 4 {
	case 0:
		err = tx.QueryRow(ctx, didSQL, n).Scan(&got)
	case 1:
		tag, execErr := tx.Exec(ctx, didSQL, n)
		got, err = n-1+int(tag.RowsAffected()), execErr
	case 2:
		rows, _ := tx.Query(ctx, didSQL, n)
		got, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	case 3:
		err = tx.QueryRow(ctx, `INSERT INTO did (n) VALUES (@n) RETURNING n;`, pgx.NamedArgs{"n": n}).Scan(&got)
	}
	if err == nil && got != n {
		err = fmt.Errorf("message %d got the answer to %d", n, got)
	}
	return err
}

func TestPipeline_BlamesTheMessageThatFails(t *testing.T) {
	t.Parallel()
	own := errors.New("its own")
	slow := map[string]bool{ // of these the pipeline cannot tell whose doing they are
		"with a syntax error": true, "and keeps quiet about it": true, "by its delay": true,
	}
	for name, fail := range map[string]func(context.Context, pgx.Tx, int) error{
		"before its statement": func(context.Context, pgx.Tx, int) error { return own },
		"after it":             func(ctx context.Context, tx pgx.Tx, n int) error { return errors.Join(insert(ctx, tx, n), own) },
		"with it": func(ctx context.Context, tx pgx.Tx, _ int) error {
			_, err := tx.Exec(ctx, `SELECT 1/$1::int`, 0)
			return err
		},
		"with a syntax error": func(ctx context.Context, tx pgx.Tx, _ int) error {
			_, err := tx.Exec(ctx, `SELECT FROM WHERE $1`, 0)
			return err
		},
		"with text that is not UTF-8": func(ctx context.Context, tx pgx.Tx, _ int) error {
			_, err := tx.Exec(ctx, `SELECT $1::text`, "\xff")
			return err
		},
		"and keeps quiet about it": func(ctx context.Context, tx pgx.Tx, _ int) error {
			_, _ = tx.Exec(ctx, `SELECT 1/$1::int`, 0)
			return nil
		},
		"with no row": func(ctx context.Context, tx pgx.Tx, n int) error {
			return tx.QueryRow(ctx, `SELECT 1 WHERE $1 < 0`, n).Scan(&n)
		},
		"in a panic":   func(context.Context, pgx.Tx, int) error { panic("it") },
		"in a Goexit":  func(context.Context, pgx.Tx, int) error { runtime.Goexit(); return nil },
		"by its delay": func(ctx context.Context, _ pgx.Tx, _ int) error { <-ctx.Done(); return ctx.Err() },
	} {
		for bad, mode := range map[int]pgx.QueryExecMode{
			0: pgx.QueryExecModeCacheStatement, 5: pgx.QueryExecModeCacheStatement, 9: pgx.QueryExecModeCacheStatement,
			7: pgx.QueryExecModeSimpleProtocol,
		} {
			t.Run(fmt.Sprint(name, ", message ", bad), func(t *testing.T) {
				t.Parallel()
				tx, _ := beginIn(t, mode)
				p, h := runIn(t, tx, 10, func(ctx context.Context, tx pgx.Tx, n int) error {
					if n == bad {
						return fail(ctx, tx, n)
					}
					return insert(ctx, tx, n)
				})
				want := slices.Delete(upTo(10), bad, bad+1)
				if got := did(t, tx); !slices.Equal(got, want) {
					t.Errorf("effects %v, want %v", got, want)
				}
				if len(p.failed) != 1 || string(p.failed[0].msg.Data()) != fmt.Sprint(bad) || p.failed[0].failure == nil {
					t.Errorf("failed: %v, want message %d", failures(p), bad)
				}
				if lost := h.streak.calls.Load() < 0; lost != slow[name] && mode == pgx.QueryExecModeCacheStatement {
					t.Errorf("streak lost: %v", lost)
				}
			})
		}
	}
}

func TestPipeline_CallsForAMessageFewTimesWhereAllFail(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	calls := make([]int, pipelined)
	p, _ := runIn(t, tx, pipelined, func(ctx context.Context, tx pgx.Tx, n int) error {
		calls[n]++
		return errors.Join(insert(ctx, tx, n), errors.New("its own"))
	})
	if len(p.failed) != pipelined || len(did(t, tx)) > 0 {
		t.Errorf("%d failed, want %d and no effect", len(p.failed), pipelined)
	}
	if most := slices.Max(calls); most > bits.Len(pipelined)+1 {
		t.Errorf("up to %d calls for a message: %v", most, calls)
	}
}

func failures(p *pass) (errs []error) {
	for _, d := range p.failed {
		errs = append(errs, d.failure)
	}
	return errs
}
