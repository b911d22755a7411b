package inbox_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
)

// BenchmarkWorker drains b.N waiting messages whose effect is one row. Run it
// with -benchtime 100000x, and with TEST_DATABASE_URL naming a server that
// syncs: the one the tests start does not, which flatters a transaction each.
func BenchmarkWorker(b *testing.B) {
	insert := func(e *env) inbox.Handler { return e.effect("n") }
	function := func(e *env) inbox.Handler { return inbox.SQLFunction(e.subject("n"), "public.handle") }
	b.Run("HandleTx", func(b *testing.B) { drainAll(b, inbox.WorkerConfig{}, insert) })
	b.Run("SQLFunction", func(b *testing.B) { drainAll(b, inbox.WorkerConfig{}, function) })
	b.Run("HandleTx in a transaction each", func(b *testing.B) {
		drainAll(b, inbox.WorkerConfig{BatchSize: 1, Concurrency: 32}, insert)
	})
}

func drainAll(b *testing.B, cfg inbox.WorkerConfig, handler func(*env) inbox.Handler) {
	e := newEnv(b)
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO effect (message_id, note) VALUES (m.message_id, m.payload->>'to') $$`)
	e.publishMany(b.N)
	pool := e.db.Config()
	pool.MaxConns = 40
	db, err := pgxpool.NewWithConfig(b.Context(), pool)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	cfg.Stream, cfg.Consumer, cfg.Logger = e.stream, "w", slog.New(slog.DiscardHandler)
	b.ResetTimer()
	_, stop := e.startOn(db, e.dial, cfg, handler(e))
	for e.stored() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	stop()
	e.wantEffects(b.N)
}

func (e *env) publishMany(n int) {
	e.t.Helper()
	js, err := jetstream.New(e.js.Conn(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		e.t.Fatal(err)
	}
	for range n {
		if _, err := js.PublishMsgAsync(wireMsg(e.subject("n"), uuid.Must(uuid.NewV7()), `{"to":"ada@example.com"}`)); err != nil {
			e.t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
