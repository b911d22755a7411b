package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/doctor"
	"github.com/jetboxhq/jetbox/migrations"
)

// doctorCommand takes the daemons' settings: it examines what they would do.
type doctorCommand struct {
	daemonFlags
	DataDir string `placeholder:"jetbox-data" help:"Without a database: that of the jetbox up that runs here (JETBOX_DATA_DIR)."`
	JSON    bool   `name:"json" help:"One JSON object a finding."`
}

func (c doctorCommand) Run(ctx context.Context, w world) error {
	s := c.settings(w)
	s.checkRelay()
	s.checkHandlers()                                                   // without any, the worker may be an application of its own
	if db, err := c.databaseFlags.config(s.env, "doctor"); err == nil { // else the finding about Postgres says so
		s.checkPool(db)
	}
	s.checkAPI(apiFlags{})
	var found []doctor.Finding
	note := func(check, fix string, err error) {
		if err != nil {
			found = append(found, doctor.Finding{Level: doctor.Error, Check: check, Found: err.Error(), Fix: fix})
		}
	}
	for _, err := range s.mistakes {
		note("settings", "correct the flag, the variable or jetbox.yaml", err)
	}
	cfg := doctor.Config{
		Streams: s.relay.Streams, Stream: cmp.Or(s.worker.Stream, "JOBS"), Consumer: cmp.Or(s.worker.Consumer, "worker"),
		Private: !c.databaseFlags.named(s.env),
	}
	more, err := c.postgres(ctx, s.env, cfg)
	note("postgres", "see DATABASE_URL, and whether the server runs and lets this role in", err)
	found = append(found, more...)
	more, err = c.nats(ctx, w, cfg)
	note("nats", "see NATS_URL, and whether the server runs and lets this user in", err)
	return c.report(w, append(found, more...))
}

func (c doctorCommand) postgres(ctx context.Context, env environment, cfg doctor.Config) ([]doctor.Finding, error) {
	db, err := operatorFlags{databaseFlags: c.databaseFlags, DataDir: c.DataDir}.database(env)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, db, 0)
	if err != nil {
		return nil, err
	}
	found, err := examine(ctx, conn, cfg)
	return found, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

func examine(ctx context.Context, conn *pgx.Conn, cfg doctor.Config) ([]doctor.Finding, error) {
	var found []doctor.Finding
	schema := migrations.Check(ctx, conn)
	if schema != nil {
		found = append(found, doctor.Schema(conn, schema))
	}
	more, err := doctor.Postgres(ctx, conn, cfg, schema == nil)
	return append(found, more...), err
}

func (c doctorCommand) nats(ctx context.Context, w world, cfg doctor.Config) ([]doctor.Finding, error) {
	broker, err := c.broker(w, c.DataDir)
	if err != nil {
		return nil, nil // the settings' finding says so
	}
	nc, err := broker.Dial("jetbox doctor", "_INBOX_doctor")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return doctor.NATS(ctx, nc, cfg)
}

func (c doctorCommand) report(w world, found []doctor.Finding) error {
	if len(found) > 0 || c.JSON {
		err := show(operatorFlags{JSON: c.JSON}, w, "LEVEL\tCHECK\tFINDING AND FIX", found, func(f doctor.Finding) string {
			return fmt.Sprintf("%s\t%s\t%s\n\t\tfix: %s", f.Level, f.Check, f.Found, f.Fix)
		})
		if err != nil {
			return err
		}
	}
	switch doctor.ExitCode(found) {
	case exitUsage:
		return mistakes{fmt.Errorf("doctor: %d findings, errors among them", len(found))}
	case exitFailure:
		return fmt.Errorf("doctor: %d warnings", len(found))
	}
	_, err := fmt.Fprintln(w.stderr, "nothing is wrong that can be seen from here")
	return err
}
