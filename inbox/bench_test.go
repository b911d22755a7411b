package inbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/inbox"
)

// BenchmarkWorker drains b.N waiting messages whose effect is one row. Run it
// with -benchtime 100000x, and with TEST_DATABASE_URL naming a server that
// syncs: the one the tests start does not, which flatters a transaction each.
// On a busy machine compare cpu-µs/msg, which is this process's: worker and
// broker, without Postgres.
func BenchmarkWorker(b *testing.B) {
	for _, percent := range []int{0, 1} {
		name := func(kind string) string { return fmt.Sprintf("%s/%d%% failing", kind, percent) }
		b.Run(name("HandleTx"), func(b *testing.B) { drainAll(b, inbox.WorkerConfig{}, percent, insertEach) })
		b.Run(name("HandleBatch"), func(b *testing.B) { drainAll(b, inbox.WorkerConfig{}, percent, insertAll) })
		b.Run(name("SQLFunction"), func(b *testing.B) { drainAll(b, inbox.WorkerConfig{}, percent, callFunction) })
	}
	b.Run("HandleTx in a transaction each", func(b *testing.B) {
		drainAll(b, inbox.WorkerConfig{BatchSize: 1, Concurrency: 32}, 0, insertEach)
	})
}

type note struct {
	To    string `json:"to"`
	Fails bool   `json:"fails"`
}

// err is a failure of the first attempt.
func (n note) err(attempt int) error {
	if n.Fails && attempt == 1 {
		return inbox.RetryAfter(0, errTest)
	}
	return nil
}

func insertEach(e *env) inbox.Handler {
	return inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[note]) (any, error) {
		if err := m.Payload.err(m.Attempt); err != nil {
			return nil, err
		}
		_, err := tx.Exec(ctx, effectSQL, m.ID, m.Payload.To)
		return nil, err
	})
}

func insertAll(e *env) inbox.Handler {
	return inbox.HandleBatch(e.subject("n"), func(ctx context.Context, tx pgx.Tx, msgs []inbox.Message[note]) ([]any, error) {
		ids, notes := make([]uuid.UUID, len(msgs)), make([]string, len(msgs))
		for i, m := range msgs {
			if err := m.Payload.err(m.Attempt); err != nil {
				return nil, err
			}
			ids[i], notes[i] = m.ID, m.Payload.To
		}
		_, err := tx.Exec(ctx, `INSERT INTO effect (message_id, note) SELECT * FROM unnest($1::uuid[], $2::text[])`, ids, notes)
		return make([]any, len(msgs)), err
	})
}

// callFunction calls a function in SQL, whose failure is a division by zero.
func callFunction(e *env) inbox.Handler {
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO effect (message_id, note) VALUES (m.message_id,
			CASE WHEN (m.payload->>'fails')::boolean AND m.attempt = 1 THEN (1 / (m.attempt - 1))::text ELSE m.payload->>'to' END) $$`)
	return inbox.SQLFunction(e.subject("n"), "public.handle")
}

func drainAll(b *testing.B, cfg inbox.WorkerConfig, percent int, handler func(*env) inbox.Handler) {
	e := newEnv(b)
	h := handler(e)
	e.publishAsync(b.N, func(i int, _ uuid.UUID) string {
		return fmt.Sprintf(`{"to":"ada@example.com","fails":%t}`, i%100 < percent)
	})
	pool := e.db.Config()
	pool.MaxConns = 40
	db, err := pgxpool.NewWithConfig(b.Context(), pool)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	cfg.Stream, cfg.Consumer, cfg.Logger, cfg.RetryDelay = e.stream, "w", slog.New(slog.DiscardHandler), time.Millisecond
	before := cpu(b)
	b.ResetTimer()
	_, stop := e.startOn(db, e.dial, cfg, h)
	for e.stored() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/msg")
	stop()
	e.wantEffects(b.N)
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
