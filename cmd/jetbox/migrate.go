package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/migrations"
)

type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Apply what is missing." example:"jetbox migrate up"`
	Down   migrateDownCommand   `cmd:"" help:"Take migrations back, with the data they hold." example:"jetbox migrate down --to 17 --yes"`
	Status migrateStatusCommand `cmd:"" help:"List the migrations and which of them the database has." example:"jetbox migrate status --json"`
}

type migrateFlags struct {
	databaseFlags
	Wait time.Duration `default:"15s" help:"How long to wait for a database that is just starting."`
}

type migrateUpCommand struct {
	migrateFlags
}

func (c migrateUpCommand) Run(ctx context.Context, w world) error {
	db, err := c.reach(ctx, w)
	if err != nil {
		return err
	}
	return migrateUp(ctx, w, db)
}

func migrateUp(ctx context.Context, w world, db *pgx.ConnConfig) error {
	before, err := migrations.Status(ctx, db)
	if err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, db); err != nil {
		return err
	}
	for _, m := range before {
		if !m.Applied {
			_, _ = fmt.Fprintln(w.stderr, "applied", m.File)
		}
	}
	_, err = fmt.Fprintf(w.stderr, "the database is at version %d\n", migrations.Latest())
	return err
}

type migrateDownCommand struct {
	migrateFlags
	To  int64 `required:"" placeholder:"VERSION" help:"The version to go back to; 0 removes everything."`
	Yes bool  `help:"Really: tables and what is in them are dropped."`
}

func (c migrateDownCommand) Run(ctx context.Context, w world) error {
	if !c.Yes {
		return mistakes{errors.New("migrate down drops tables with what is in them: add --yes if you mean it")}
	}
	if c.To < 0 || c.To > migrations.Latest() {
		return mistakes{fmt.Errorf("--to is %d, need 0 to %d", c.To, migrations.Latest())}
	}
	db, err := c.reach(ctx, w)
	if err != nil {
		return err
	}
	n, err := migrations.Down(ctx, db, c.To)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.stderr, "took back %d, the database is at version %d\n", n, c.To)
	return err
}

type migrateStatusCommand struct {
	migrateFlags
	JSON bool `name:"json" help:"One JSON object a line."`
}

func (c migrateStatusCommand) Run(ctx context.Context, w world) error {
	db, err := c.reach(ctx, w)
	if err != nil {
		return err
	}
	list, err := migrations.Status(ctx, db)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(w, list)
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	for _, m := range list {
		state := "missing"
		if m.Applied {
			state = "applied"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\n", state, m.File)
	}
	return table.Flush()
}

func printJSON(w world, list []migrations.Migration) error {
	out := json.NewEncoder(w.stdout)
	for _, m := range list {
		if err := out.Encode(m); err != nil {
			return err
		}
	}
	return nil
}

// reach returns the database once it answers.
func (f migrateFlags) reach(ctx context.Context, w world) (*pgx.ConnConfig, error) {
	cfg, err := f.config(newEnvironment(w.environ), "migrate")
	if err != nil {
		return nil, mistakes{err}
	}
	conn, err := connect(ctx, cfg.ConnConfig, f.Wait)
	if err != nil {
		return nil, err
	}
	return cfg.ConnConfig, conn.Close(ctx)
}
