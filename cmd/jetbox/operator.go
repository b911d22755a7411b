package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/natsconn"
	"github.com/jetboxhq/jetbox/migrations"
)

// operatorFlags are what verbs for people have in common.
type operatorFlags struct {
	databaseFlags
	DataDir string `placeholder:"jetbox-data" help:"Without a database: that of the jetbox up that runs here (JETBOX_DATA_DIR)."`
	JSON    bool   `name:"json" help:"JSON, one object a line."`
}

// with runs fn on a connection to a database of this binary's schema. One that
// nobody names is that of a running jetbox up.
func (f operatorFlags) with(ctx context.Context, w world, fn func(*pgx.Conn) error) error {
	db, err := f.database(newEnvironment(w.environ))
	if err != nil {
		return mistakes{err}
	}
	conn, err := connect(ctx, db, 0)
	if err != nil {
		return err
	}
	err = migrations.Check(ctx, conn)
	if err == nil {
		err = fn(conn)
	}
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// database falls back on what a running jetbox up has left in its directory.
func (f operatorFlags) database(env environment) (*pgx.ConnConfig, error) {
	if !f.named(env) {
		url, err := readNote(dataDir(f.DataDir, env))
		if err != nil {
			return nil, err
		}
		env["DATABASE_URL"] = url
	}
	cfg, err := f.config(env, "operator")
	if err != nil {
		return nil, err
	}
	return cfg.ConnConfig, nil
}

// show writes rows as one JSON object a line, or as a table.
func show[T any](f operatorFlags, w world, header string, rows []T, line func(T) string) error {
	if f.JSON {
		out := json.NewEncoder(w.stdout)
		for _, r := range rows {
			if err := out.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w.stderr, "none")
		return err
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, header)
	for _, r := range rows {
		_, _ = fmt.Fprintln(table, printable(line(r)))
	}
	return table.Flush()
}

// say writes what a verb has done: as one JSON object, or as a line.
func (f operatorFlags) say(w world, done any, line string) error {
	if f.JSON {
		return json.NewEncoder(w.stdout).Encode(done)
	}
	_, err := fmt.Fprintln(w.stdout, line)
	return err
}

func atLeastOne(limit int) error {
	if limit < 1 {
		return mistakes{fmt.Errorf("--limit %d: want 1 or more", limit)}
	}
	return nil
}

// actor is who the audit names: the person at the shell.
func actor() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}

// broker returns how to reach NATS; one that nobody names is that of a running
// jetbox up.
func (f natsFlags) broker(w world, dir string) (natsconn.Config, error) {
	env := newEnvironment(w.environ)
	if !f.named(env) {
		if url, err := readNoteOf("NATS_URL", dataDir(dir, env)); err == nil {
			env["NATS_URL"] = url
		}
	}
	return f.config(env)
}
