package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/daemon"
	"github.com/jetboxhq/jetbox/internal/wait"
	"github.com/jetboxhq/jetbox/migrations"
)

// gate starts a service once the database answers and has the schema this
// binary needs. A database that is away is waited for; a wrong schema is final.
type gate struct {
	db   *pgx.ConnConfig
	log  *slog.Logger
	next daemon.Service
}

// Run waits, then runs the service.
func (g gate) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	for told := ""; ; {
		err := g.check(ctx)
		if err == nil {
			return g.next.Run(ctx)
		}
		if errors.Is(err, migrations.ErrVersion) {
			return err
		}
		if ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			g.log.LogAttrs(ctx, slog.LevelWarn, "waiting for Postgres", slog.Any("error", err))
		}
		if !wait.Sleep(ctx, min(pause.NextBackOff(), 5*time.Second)) {
			return nil
		}
	}
}

func (g gate) check(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, g.db)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // it has only read
	return migrations.Check(ctx, conn)
}

// prepare waits for the database as migrate does, and migrates it.
func prepare(ctx context.Context, w world, db *pgx.ConnConfig) error {
	conn, err := connect(ctx, db, 15*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // it has only read
	err = migrations.Check(ctx, conn)
	if errors.Is(err, migrations.ErrVersion) {
		return migrateUp(ctx, w, db)
	}
	return err
}
