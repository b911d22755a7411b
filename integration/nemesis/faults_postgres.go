package main

import (
	"context"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/wait"
)

func crashPostgres(sig syscall.Signal) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) error {
		if err := l.postgres.crash(sig, func() { wait.Sleep(ctx, min(f.For, time.Second)) }); err != nil {
			return err
		}
		return l.postgres.start(context.WithoutCancel(ctx), l.links)
	}
}

// terminateSQL ends a part of the sessions, ours and the daemons' alike.
const terminateSQL = `
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.5`

func terminateBackends(ctx context.Context, l *lab, f fault) error {
	for end := time.Now().Add(f.For); time.Now().Before(end); {
		_, _ = l.count(ctx, terminateSQL) // Postgres may be away for another reason
		wait.Sleep(ctx, 400*time.Millisecond)
	}
	return nil
}

// holdXminSQL makes a snapshot that keeps every dead row; lockSQL stands in the
// way of the relay's records and the worker's.
const (
	holdXminSQL = `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM nemesis.truth`
	lockSQL     = `LOCK TABLE jetbox.relay_batch, jetbox.inbox IN EXCLUSIVE MODE`
)

// holdTransaction keeps a transaction open in which sql ran. One that another
// fault breaks is begun again.
func holdTransaction(sql string) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) error {
		for end := time.Now().Add(f.For); time.Now().Before(end); wait.Sleep(ctx, 100*time.Millisecond) {
			_ = pgx.BeginFunc(ctx, l.db, func(tx pgx.Tx) error { // nothing is to be committed
				if _, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll(); err != nil {
					return err
				}
				wait.Sleep(ctx, time.Until(end))
				return pgx.ErrTxCommitRollback
			})
		}
		return nil
	}
}

// freezeRecording stops a relay while its record waits for a lock, for longer
// than its lease. Then the record goes on without it, and it goes on itself. A
// relay that only stands by is just frozen.
func freezeRecording(ctx context.Context, l *lab, f fault) error {
	d := l.daemons[f.Target]
	_ = pgx.BeginFunc(ctx, l.db, func(tx pgx.Tx) error { // Postgres may be away
		if _, err := tx.Exec(ctx, lockSQL); err != nil {
			return err
		}
		wait.Sleep(ctx, 300*time.Millisecond) // for a record to come and wait
		if err := d.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		wait.Sleep(ctx, max(f.For, 3500*time.Millisecond)) // the other relay has its place then
		return nil
	})
	wait.Sleep(ctx, 100*time.Millisecond)
	return d.signal(syscall.SIGCONT)
}
