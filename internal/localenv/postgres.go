// Package localenv runs private servers for development, the demo and tests:
// PostgreSQL from installed programs or Docker, and NATS inside this process.
//
// What they stored survives Stop and kill -9, and nothing outside this machine
// can reach them. They are not a production set-up: no backups, no TLS, one node.
//
// Everything lies in the directory the caller names: postgres/ and nats/ hold
// the data, *.log what the servers say, postgres.password the way in.
package localenv

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNoPostgres reports a machine on which no server can be started. Its text
// tells a person what to do.
var ErrNoPostgres = errors.New(`found neither the programs of PostgreSQL 14 or newer nor a Docker engine; any one of these helps:
  Debian, Ubuntu   sudo apt-get install postgresql
  macOS            brew install postgresql@17
  Docker           start it: jetbox runs ` + image + ` by itself
  your own server  export DATABASE_URL=postgres://user:password@host:5432/database`)

// Postgres is a running private server.
type Postgres struct {
	url    string
	origin string
	stop   func() error
}

// StartPostgres starts the server whose data lie in dir, new or as they were
// left, and waits until it answers. ctx bounds the start alone; the server runs
// until Stop, and does not outlive this process.
//
// Settings are "name=value", as in postgresql.conf. Without any, durability is
// as safe as Postgres makes it.
func StartPostgres(ctx context.Context, dir string, settings ...string) (*Postgres, error) {
	return StartPostgresIn(ctx, dir, nil, settings...)
}

// StartPostgresIn is StartPostgres with variables, "NAME=value", in the
// environment of an installed server, which has none of ours.
func StartPostgresIn(ctx context.Context, dir string, env []string, settings ...string) (*Postgres, error) {
	p, err := installed().start(ctx, dir, env, settings)
	if err != nil {
		return nil, fmt.Errorf("localenv: postgres: %w", err)
	}
	return p, nil
}

// URL points to the database jetbox, as its superuser.
func (p *Postgres) URL() string { return p.url }

// Origin says in words which server this is.
func (p *Postgres) Origin() string { return p.origin }

// Stop ends the server and keeps its data. A second call does nothing.
func (p *Postgres) Stop() error {
	if err := p.stop(); err != nil {
		return fmt.Errorf("localenv: postgres: stop: %w", err)
	}
	return nil
}

func (f finder) start(ctx context.Context, dir string, env, settings []string) (*Postgres, error) {
	c, unlock, err := openCluster(dir, settings)
	if err != nil {
		return nil, err
	}
	c.env = env
	p, err := f.startCluster(ctx, c)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	stop := p.stop
	p.stop = func() error { return errors.Join(stop(), unlock()) }
	return p, nil
}

// startCluster keeps to what made the data: other programs, or none, would
// quietly start an empty database beside them.
func (f finder) startCluster(ctx context.Context, c cluster) (*Postgres, error) {
	if exists(c.dockerData()) {
		return f.startDocker(ctx, c)
	}
	major := c.major()
	bin, err := f.programs(ctx, major)
	switch {
	case err == nil:
		return c.startInstalled(ctx, bin)
	case major != "":
		return nil, fmt.Errorf("%s needs the programs of PostgreSQL %s: %w", c.data(), major, err)
	}
	return f.startDocker(ctx, c)
}

// cluster is the directory of one server.
type cluster struct {
	dir      string // absolute, without symbolic links
	password string
	env      []string // besides serverEnv
	settings []string
}

func (c cluster) data() string         { return filepath.Join(c.dir, "postgres") }
func (c cluster) dockerData() string   { return filepath.Join(c.dir, "postgres-docker") }
func (c cluster) passwordFile() string { return filepath.Join(c.dir, "postgres.password") }
func (c cluster) logFile() string      { return filepath.Join(c.dir, "postgres.log") }

func openCluster(dir string, settings []string) (cluster, func() error, error) {
	dir, err := openDir(dir)
	if err != nil {
		return cluster{}, nil, err
	}
	unlock, err := lock(filepath.Join(dir, "postgres.lock"))
	if err != nil {
		return cluster{}, nil, err
	}
	c := cluster{dir: dir, settings: settings}
	if c.password, err = keepPassword(c.passwordFile()); err != nil {
		return cluster{}, nil, errors.Join(err, unlock())
	}
	return c, unlock, nil
}

// superuser is not called jetbox: the schema of that name would be on its
// search path, and on nobody else's.
const superuser = "postgres"

func (c cluster) url(host, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, c.password),
		Host: host, Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// serve waits for the server on host and describes it once it has its database.
func (c cluster) serve(ctx context.Context, host, where string, ended <-chan struct{}, stop func() error) (*Postgres, error) {
	conn, err := connect(ctx, c.url(host, "postgres"), ended)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is left to lose
	if err := createDatabase(ctx, conn); err != nil {
		return nil, err
	}
	version := conn.PgConn().ParameterStatus("server_version")
	return &Postgres{url: c.url(host, "jetbox"), origin: "PostgreSQL " + version + " " + where, stop: stop}, nil
}

// connect tries until the server accepts, refuses for good, or has ended.
func connect(ctx context.Context, url string, ended <-chan struct{}) (*pgx.Conn, error) {
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn, nil
		}
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code != "57P03" { // still starting
			return nil, fmt.Errorf("connect: %w", err)
		}
		select {
		case <-ended:
			return nil, errEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("connect: %w", errors.Join(context.Cause(ctx), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const hasDatabaseSQL = `SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'jetbox')`

func createDatabase(ctx context.Context, conn *pgx.Conn) error {
	var has bool
	err := conn.QueryRow(ctx, hasDatabaseSQL).Scan(&has)
	if err == nil && !has {
		_, err = conn.Exec(ctx, `CREATE DATABASE jetbox`)
	}
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
