package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/daemon"
	"github.com/jetboxhq/jetbox/internal/localenv"
)

// upCommand is every part in one process. What no setting names it brings along.
type upCommand struct {
	daemonFlags
	apiFlags
	DataDir string `placeholder:"jetbox-data" help:"Where the private Postgres and NATS keep their data (JETBOX_DATA_DIR)."`
}

func (c upCommand) Run(ctx context.Context, w world) error {
	s := c.settings(w)
	var db *pgxpool.Config
	if c.databaseFlags.named(s.env) {
		var err error
		db, err = c.databaseFlags.config(s.env, "up")
		s.note(err)
	}
	if s.publishes(s.relay.ConfirmStream) { // then the relay can see whether its own worker got everything
		s.relay.ConfirmConsumer = cmp.Or(s.relay.ConfirmConsumer, s.worker.Consumer, "worker")
	}
	s.checkRelay()
	s.checkWorker()
	s.checkPool(db)
	s.checkAPI(c.apiFlags)
	if err := found(s.mistakes...); err != nil {
		return err
	}
	ln, err := s.start(ctx)
	if err != nil {
		return err
	}
	place := surroundings{dir: dataDir(c.DataDir, s.env), db: db, nats: s.nats.Redacted()}
	if err := place.open(ctx, w, c.natsFlags.named(s.env)); err != nil {
		return errors.Join(unlessStopped(ctx, err), ln.Close(), place.close())
	}
	if place.broker != nil {
		s.nats.URL = place.broker.URL()
	}
	return errors.Join(s.runAll(ctx, w, c.apiFlags, place, ln), place.close())
}

// unlessStopped drops what a start says that a person has cut short: that it did
// not come to its end is what they wanted.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// runAll migrates and runs relay, worker and jobs API until ctx is done.
func (s *settings) runAll(ctx context.Context, w world, f apiFlags, place surroundings, ln net.Listener) error {
	if err := prepare(ctx, w, place.db.ConnConfig); err != nil {
		return errors.Join(unlessStopped(ctx, err), ln.Close())
	}
	relay, err := s.newRelay(place.db.ConnConfig)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	worker, closeAll, err := s.newWorker(ctx, place.db)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer closeAll()
	d, err := s.newDoor(ctx, f, place.db, ln.Addr())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer d.pool.Close()
	place.greet(w, ln.Addr().String(), s.builtin())
	parts := []daemon.Part{{Name: "relay", Ready: relay.Ready}, {Name: "worker", Ready: worker.Ready}, {Name: "api", Ready: d.api.Ready}}
	if place.postgres != nil {
		return s.serve(ctx, ln, parts, relay, patient{worker, s.log}, d)
	}
	return s.serve(ctx, ln, parts, relay, worker, d)
}

// surroundings are the servers that up uses: its own, or those it was told.
type surroundings struct {
	dir      string
	db       *pgxpool.Config
	nats     string
	postgres *localenv.Postgres // nil: not ours
	broker   *localenv.NATS     // nil: not ours
}

func (p *surroundings) open(ctx context.Context, w world, natsNamed bool) error {
	if p.db == nil {
		_, _ = fmt.Fprintln(w.stderr, "starting a private Postgres in", p.dir)
		postgres, err := localenv.StartPostgres(ctx, p.dir)
		if err != nil {
			return err
		}
		p.postgres = postgres
		if p.db, err = parseDatabase(postgres.URL(), "up"); err != nil {
			return err
		}
	}
	if !natsNamed {
		broker, err := localenv.StartNATS(p.dir, 0)
		if err != nil {
			return err
		}
		p.broker, p.nats = broker, broker.URL()
	}
	return p.leaveNote()
}

// close stops what is ours, and keeps its data.
func (p *surroundings) close() error {
	var errs []error
	if p.broker != nil {
		errs = append(errs, p.broker.Stop())
	}
	if p.postgres != nil {
		errs = append(errs, p.postgres.Stop(), os.Remove(noteFile(p.dir)))
	}
	return errors.Join(errs...)
}
