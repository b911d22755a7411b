package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/localenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/migrations"
)

// postgresSettings are all that a private Postgres has beyond its defaults:
// memory as any server of today has, and no checkpoint in the middle of a round.
// fsync and synchronous_commit stay on.
var postgresSettings = []string{"shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=30min"}

// lab is what a benchmark runs on: a database, a connection to NATS, and names
// that nobody else has.
type lab struct {
	Config
	dir      string
	name     string // of the database, and in capitals the prefix of the streams
	postgres string // which server this is
	url      string // of the database, for another process
	config   *pgxpool.Config
	db       *pgxpool.Pool
	nats     natsconn.Config
	nc       *nats.Conn
	js       jetstream.JetStream

	undo []func(context.Context) error // the newest last
}

// openLab returns a lab to close even when it returns an error.
func openLab(ctx context.Context, cfg Config) (*lab, error) {
	l := &lab{Config: cfg, name: "jetbox_bench_" + strings.ToLower(rand.Text()[:8])}
	for _, open := range []func(context.Context) error{l.openDir, l.openPostgres, l.openDatabase, l.openNATS} {
		if err := open(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

// closeTimeout bounds the cleaning up after a benchmark, even an interrupted one.
const closeTimeout = 30 * time.Second

func (l *lab) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, undo := range slices.Backward(l.undo) {
		errs = append(errs, undo(ctx))
	}
	return errors.Join(errs...)
}

func (l *lab) later(undo func(context.Context) error) { l.undo = append(l.undo, undo) }

func (l *lab) openDir(context.Context) (err error) {
	if l.dir, err = os.MkdirTemp("", "jetbox-bench-"); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	l.later(func(context.Context) error { return os.RemoveAll(l.dir) })
	return nil
}

func (l *lab) openPostgres(ctx context.Context) error {
	if l.Database != nil {
		l.config, l.postgres = l.Database.Copy(), "not ours"
		return nil
	}
	l.Say("starting a private Postgres")
	p, err := localenv.StartPostgres(ctx, l.dir, postgresSettings...)
	if err != nil {
		return err
	}
	l.later(func(context.Context) error { return p.Stop() })
	l.postgres = "private, " + strings.Join(postgresSettings, " ")
	l.config, err = pgxpool.ParseConfig(p.URL())
	return err
}

const (
	hasProducerSQL = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'jetbox_producer')`
	// dropProducerSQL leaves a role that another database has come to need.
	dropProducerSQL = `
DO $$
BEGIN
	DROP ROLE IF EXISTS jetbox_producer;
EXCEPTION WHEN dependent_objects_still_exist THEN
	NULL;
END $$`
	// Benchmarks of one server take turns with what belongs to the whole server.
	lockSQL   = `SELECT pg_advisory_lock(hashtext('jetbox bench'))`
	unlockSQL = `SELECT pg_advisory_unlock(hashtext('jetbox bench'))`
)

// openDatabase makes a database beside the one that was named.
func (l *lab) openDatabase(ctx context.Context) error {
	admin, err := pgx.ConnectConfig(ctx, l.config.ConnConfig)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	l.later(admin.Close)
	if err := l.createDatabase(ctx, admin); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	l.config.ConnConfig.Database = l.name
	l.url = withDatabase(l.config.ConnString(), l.name)
	if _, err := migrations.Up(ctx, l.config.ConnConfig); err != nil {
		return err
	}
	if _, err := admin.Exec(context.WithoutCancel(ctx), unlockSQL); err != nil { // a cancelled one loses the connection
		return fmt.Errorf("unlock: %w", err)
	}
	if l.db, err = l.pool(ctx, 4); err != nil {
		return err
	}
	l.later(func(context.Context) error { l.db.Close(); return nil })
	return nil
}

// createDatabase leaves admin with the lock, for the migrations. They may add a
// role, which belongs to the whole server and goes with the database.
func (l *lab) createDatabase(ctx context.Context, admin *pgx.Conn) error {
	if _, err := admin.Exec(ctx, lockSQL); err != nil {
		return err
	}
	var hadRole bool
	if err := admin.QueryRow(ctx, hasProducerSQL).Scan(&hadRole); err != nil {
		return err
	}
	_, err := admin.Exec(ctx, `CREATE DATABASE `+l.name+` TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'`)
	if err != nil {
		return err
	}
	l.later(func(ctx context.Context) error {
		_, err := admin.Exec(ctx, `DROP DATABASE `+l.name+` WITH (FORCE)`)
		for _, sql := range []string{lockSQL, dropProducerSQL} {
			if err == nil && !hadRole {
				_, err = admin.Exec(ctx, sql)
			}
		}
		return err
	})
	return nil
}

// pool opens n connections, for the caller to close.
func (l *lab) pool(ctx context.Context, n int) (*pgxpool.Pool, error) {
	cfg := l.config.Copy()
	cfg.MaxConns, cfg.MinConns = int32(n), int32(n)
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

func (l *lab) openNATS(context.Context) error {
	if l.NATS != nil {
		l.nats = *l.NATS
	} else if err := l.startNATS(); err != nil {
		return err
	}
	nc, err := l.dial(l.newInbox())
	if err != nil {
		return err
	}
	l.later(func(context.Context) error { nc.Close(); return nil })
	l.nc = nc
	l.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	return err
}

func (l *lab) dial(inboxPrefix string) (*nats.Conn, error) {
	return l.nats.Dial("jetbox bench", inboxPrefix)
}

// newInbox is a prefix for the replies to one connection.
func (l *lab) newInbox() string { return "_INBOX_" + l.name + "_" + rand.Text()[:8] }

// stream creates a stream as jetbox's own is, empty.
func (l *lab) stream(ctx context.Context, suffix string) (jetstream.Stream, error) {
	cfg := streams.Default()
	cfg.Name = strings.ToUpper(l.name + suffix)
	cfg.Subjects = []string{l.name + suffix + ".>"}
	if err := streams.Ensure(ctx, l.js, []jetstream.StreamConfig{cfg}, false); err != nil {
		return nil, err
	}
	l.later(func(ctx context.Context) error { return l.remove(ctx, cfg.Name) })
	return l.js.Stream(ctx, cfg.Name)
}

// remove deletes a stream, if it was not deleted before.
func (l *lab) remove(ctx context.Context, name string) error {
	if err := l.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete stream: %w", err)
	}
	return nil
}

func (l *lab) exec(ctx context.Context, step, sql string, args ...any) error {
	if _, err := l.db.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// payload is JSON of the size that was asked for.
func (l *lab) payload() string {
	const around = `{"text":""}`
	return `{"text":"` + strings.Repeat("x", l.Size-len(around)) + `"}`
}
