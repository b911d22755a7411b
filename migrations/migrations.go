// Package migrations holds the schema jetbox as goose files, embedded, and
// brings a database to the version this binary needs.
//
// Callers that migrate at the same time take turns. A database that is ahead of
// the binary is refused: an old binary must not guess at a new schema.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// ErrVersion reports a database whose schema is not the one this binary needs.
var ErrVersion = errors.New("schema version")

// Migration is one file and whether the database has it.
type Migration struct {
	Version int64  `json:"version"`
	File    string `json:"file"`
	Applied bool   `json:"applied"`
}

// Up applies what is missing and returns how many files that was.
func Up(ctx context.Context, db *pgx.ConnConfig) (int, error) {
	p, done, err := open(ctx, db)
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	defer done()
	if err := refuseNewer(ctx, p); err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	results, err := p.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrations: %w", err)
	}
	return len(results), nil
}

// Down takes back every migration above version to, with the data they hold.
func Down(ctx context.Context, db *pgx.ConnConfig, to int64) (int, error) {
	p, done, err := open(ctx, db)
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	defer done()
	if err := refuseNewer(ctx, p); err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	results, err := p.DownTo(ctx, to)
	if err != nil {
		return len(results), fmt.Errorf("migrations: %w", err)
	}
	return len(results), nil
}

// Status lists the migrations, oldest first.
func Status(ctx context.Context, db *pgx.ConnConfig) ([]Migration, error) {
	p, done, err := open(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	defer done()
	all, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	list := make([]Migration, len(all))
	for i, m := range all {
		list[i] = Migration{m.Source.Version, m.Source.Path, m.State == goose.StateApplied}
	}
	return list, nil
}

// Latest is the version this binary needs.
func Latest() int64 {
	names, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded: cannot happen
	}
	v, err := goose.NumericComponent(names[len(names)-1].Name())
	if err != nil {
		panic(err) // a file name in this folder is wrong: every test fails
	}
	return v
}

const versionSQL = `SELECT coalesce(max(version_id), 0) FROM jetbox.migration WHERE is_applied`

// Check returns an error that wraps ErrVersion unless the database has exactly
// the schema this binary needs.
func Check(ctx context.Context, conn *pgx.Conn) error {
	var have int64
	err := conn.QueryRow(ctx, versionSQL).Scan(&have)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Code == "42P01" || e.Code == "3F000") {
		have, err = 0, nil
	}
	switch need := Latest(); {
	case err != nil:
		return fmt.Errorf("migrations: version: %w", err)
	case have < need:
		return fmt.Errorf("%w: the database is at %d, this binary needs %d: run jetbox migrate up", ErrVersion, have, need)
	case have > need:
		return newer(have, need)
	}
	return nil
}

func refuseNewer(ctx context.Context, p *goose.Provider) error {
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if need := Latest(); have > need {
		return newer(have, need)
	}
	return nil
}

func newer(have, need int64) error {
	return fmt.Errorf("%w: the database is at %d, this binary knows up to %d: use the newer jetbox that migrated it", ErrVersion, have, need)
}

// schemaSQL makes the schema that also holds goose's own table. IF NOT EXISTS
// alone fails when two sessions create at the same moment, and for a role that
// may not create although it need not.
const schemaSQL = `
DO $$ BEGIN
	PERFORM pg_advisory_xact_lock(hashtext('jetbox.migrations'));
	IF to_regnamespace('jetbox') IS NULL THEN
		CREATE SCHEMA jetbox;
	END IF;
END $$`

func open(ctx context.Context, cfg *pgx.ConnConfig) (*goose.Provider, func(), error) {
	db := stdlib.OpenDB(*cfg)
	p, err := provider(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return p, func() { _ = db.Close() }, nil // committed or not, that is settled by then
}

func provider(ctx context.Context, db *sql.DB) (*goose.Provider, error) {
	if _, err := db.ExecContext(ctx, schemaSQL); err != nil {
		return nil, fmt.Errorf("create schema: %w", err)
	}
	// Its default is to try every 5 seconds.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("locker: %w", err)
	}
	return goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName("jetbox.migration"),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
}
