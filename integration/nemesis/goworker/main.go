// Goworker is the second worker of a nemesis run: a program as a user of package
// inbox would write it. Its handler makes one statement, so that it runs in
// pipelines, which the SQL function of the first worker does not.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "goworker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	// The limits are those of jetbox.yaml, which the first worker reads.
	w, err := inbox.NewWorker(db, dial, inbox.WorkerConfig{
		Stream: os.Getenv("STREAM"), Consumer: os.Getenv("CONSUMER"),
		AckWait: 2 * time.Second, BatchSize: 100, RetryDelay: 50 * time.Millisecond, MaxAttempts: 8,
		DrainTimeout: 3 * time.Second,
		Logger:       slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, inbox.HandleTx("jobs.>", handle))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// dial receives under the prefix at which a control looks for deliveries.
func dial() (*nats.Conn, error) {
	return nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.Timeout(5*time.Second), nats.CustomInboxPrefix("_INBOX_worker"))
}

const handleSQL = `SELECT nemesis.handle(ROW($1::uuid, $2::text, $3::text, NULL, $4::json, NULL, NULL, $5::int)::jetbox.message)`

func handle(ctx context.Context, tx pgx.Tx, m inbox.Message[json.RawMessage]) (result json.RawMessage, err error) {
	err = tx.QueryRow(ctx, handleSQL, m.ID, m.Subject, m.Key, m.Payload, m.Attempt).Scan(&result)
	return result, err
}
