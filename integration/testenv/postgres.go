package testenv

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/localenv"
	"github.com/jetboxhq/jetbox/migrations"
)

// settings suit a server that is thrown away. Two-phase commit is off in
// Postgres by default, and tests use it.
var settings = []string{"fsync=off", "max_connections=300", "max_prepared_transactions=20"}

// Database returns a pool on a migrated database of the test's own.
func Database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	db := postgres.get(t)
	template, err := db.template()
	if err != nil {
		t.Fatalf("testenv: template: %v", err)
	}
	cfg := db.admin.Config()
	cfg.ConnConfig = db.create(t, template)
	cfg.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("testenv: open database: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// EmptyDatabase returns the way to a database of the test's own without the schema.
func EmptyDatabase(t testing.TB) *pgx.ConnConfig {
	t.Helper()
	return postgres.get(t).create(t, blank)
}

// blank makes databases alike on all servers: some images default to SQL_ASCII.
const blank = "template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"

// database is a server and this binary's template on it.
type database struct {
	admin *pgxpool.Pool

	once     sync.Once
	migrated string // empty until the first test that needs it
	err      error
}

// OwnPostgres returns an installed server that only this test has, with its data
// in dir. The test is skipped where there is none, and with -short.
func OwnPostgres(t testing.TB, dir string) *localenv.Postgres {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Postgres of its own")
	}
	p, err := localenv.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Skipf("no Postgres can be had: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return p
}

func startPostgres(ctx context.Context) (*database, closer, error) {
	url, origin, stop, err := findPostgres(ctx)
	if err != nil {
		return nil, stop, err
	}
	db, err := openServer(ctx, url)
	if err != nil {
		return nil, stop, err
	}
	announce("Postgres", origin)
	return db, inOrder(db.close, stop), nil
}

func findPostgres(ctx context.Context) (url, origin string, stop closer, err error) {
	if url := os.Getenv("TEST_DATABASE_URL"); url != "" {
		return url, "TEST_DATABASE_URL", nil, nil
	}
	url, stop, noContainer := runPostgres(ctx)
	if noContainer == nil {
		return url, postgresImage, stop, nil
	}
	dir, remove, err := tempDir()
	if err != nil {
		return "", "", nil, err
	}
	p, err := localenv.StartPostgres(ctx, dir, settings...)
	if err != nil {
		return "", "", remove, err
	}
	return p.URL(), p.Origin() + because(noContainer), inOrder(p.Stop, remove), nil
}

func openServer(ctx context.Context, url string) (*database, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	cfg.MaxConns = 4
	admin, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := admin.Ping(ctx); err != nil {
		admin.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &database{admin: admin}, nil
}

// template names the migrated database that the tests' own are copied from.
func (db *database) template() (string, error) {
	db.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		db.migrated = "jetbox_template_" + unique()
		if _, db.err = db.admin.Exec(ctx, "CREATE DATABASE "+db.migrated+" TEMPLATE "+blank); db.err == nil {
			_, db.err = migrations.Up(ctx, db.config(db.migrated))
		}
	})
	return db.migrated, db.err
}

// create makes a database that is dropped when the test ends, whoever is still
// connected to it.
func (db *database) create(t testing.TB, template string) *pgx.ConnConfig {
	t.Helper()
	name := "jetbox_test_" + unique()
	if _, err := db.admin.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("testenv: create database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.drop(name); err != nil {
			t.Errorf("testenv: drop database: %v", err)
		}
	})
	return db.config(name)
}

func (db *database) drop(name string) error {
	_, err := db.admin.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
	return err
}

func (db *database) config(name string) *pgx.ConnConfig {
	cfg := db.admin.Config().ConnConfig
	cfg.Database = name
	return cfg
}

func (db *database) close() error {
	defer db.admin.Close()
	if db.migrated == "" {
		return nil
	}
	return db.drop(db.migrated)
}
