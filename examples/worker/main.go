// Worker is a worker with a handler of its own: it books orders that were
// enqueued on jobs.orders.placed.
//
//	DATABASE_URL=postgres://… NATS_URL=nats://… go run ./examples/worker
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/inbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("DATABASE_URL"), os.Getenv("NATS_URL")); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

type order struct{ Total int64 }

func run(ctx context.Context, databaseURL, natsURL string) error {
	db, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	dial := func() (*nats.Conn, error) { return nats.Connect(natsURL, nats.MaxReconnects(-1)) }
	w, err := inbox.NewWorker(db, dial, inbox.WorkerConfig{Consumer: "orders"},
		inbox.HandleTx("jobs.orders.placed", func(ctx context.Context, tx pgx.Tx, msg inbox.Message[order]) (any, error) {
			_, err := tx.Exec(ctx, `UPDATE revenue SET total = total + $1`, msg.Payload.Total)
			return nil, err
		}))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}
