package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/daemon"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/outbox"
)

type relayCommand struct{ daemonFlags }

func (c relayCommand) Run(ctx context.Context, w world) error {
	s := c.settings(w)
	db, err := c.databaseFlags.config(s.env, "relay")
	s.note(err)
	s.checkRelay()
	if err := found(s.mistakes...); err != nil {
		return err
	}
	ln, err := s.start(ctx)
	if err != nil {
		return err
	}
	relay, err := s.newRelay(db.ConnConfig)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	return s.serve(ctx, ln, []daemon.Part{{Name: "relay", Ready: relay.Ready}}, gate{db.ConnConfig, s.log, relay})
}

type workerCommand struct{ daemonFlags }

func (c workerCommand) Run(ctx context.Context, w world) error {
	s := c.settings(w)
	db, err := c.databaseFlags.config(s.env, "worker")
	s.note(err)
	s.checkWorker()
	s.checkPool(db)
	if err := found(s.mistakes...); err != nil {
		return err
	}
	ln, err := s.start(ctx)
	if err != nil {
		return err
	}
	worker, closeAll, err := s.newWorker(ctx, db)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer closeAll()
	return s.serve(ctx, ln, []daemon.Part{{Name: "worker", Ready: worker.Ready}}, gate{db.ConnConfig, s.log, worker})
}

// start says what was misspelt, and opens the port before anything else starts.
func (s *settings) start(ctx context.Context) (net.Listener, error) {
	for name, meant := range s.env.typos() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "unknown variable is ignored",
			slog.String("name", name), slog.String("did_you_mean", meant))
	}
	return daemon.Listen(ctx, s.httpAddr)
}

// checkRelay notes what NewRelay would refuse.
func (s *settings) checkRelay() {
	_, err := outbox.NewRelay(nil, nil, s.relay)
	s.note(err)
	if s.relay.ConfirmConsumer != "" && !s.publishes(s.relay.ConfirmStream) {
		s.note(fmt.Errorf("relay.confirm_stream (without it worker.stream): %s is not one of the streams that the relay publishes to", s.relay.ConfirmStream))
	}
}

func (s *settings) publishes(stream string) bool {
	return slices.ContainsFunc(s.relay.Streams, func(c jetstream.StreamConfig) bool { return c.Name == stream })
}

// checkWorker notes what NewWorker would refuse, and handlers without a message.
func (s *settings) checkWorker() {
	s.checkHandlers()
	s.checkBuiltin()
}

// checkHandlers notes what NewWorker would refuse.
func (s *settings) checkHandlers() {
	s.makeHandlers()
	_, err := inbox.NewWorker(new(pgxpool.Pool), s.dial("worker"), s.worker, s.handlers...) // New does no I/O
	s.note(err)
}

// checkBuiltin notes that the built-in handlers have no message to take.
func (s *settings) checkBuiltin() {
	if !s.builtin() {
		return
	}
	for _, c := range s.relay.Streams {
		if c.Name == s.worker.Stream && !slices.ContainsFunc(c.Subjects, func(p string) bool { return streams.Covers(p, "jobs.echo") }) {
			s.note(fmt.Errorf("worker.handlers is empty, and the built-in handlers are for jobs.*, which stream %s does not take: name your own", c.Name))
		}
	}
}

func (s *settings) connections() int32 { return int32(s.worker.Connections()) }

// checkPool notes a pool that was made too small on purpose.
func (s *settings) checkPool(db *pgxpool.Config) {
	if db != nil && strings.Contains(db.ConnString(), "pool_max_conns") && db.MaxConns < s.connections() {
		s.note(fmt.Errorf("DATABASE_URL: pool_max_conns is %d, need %d for worker.concurrency %d",
			db.MaxConns, s.connections(), s.connections()-2))
	}
}

func (s *settings) newRelay(db *pgx.ConnConfig) (*outbox.Relay, error) {
	cfg := s.relay
	cfg.Metrics = s.metrics
	return outbox.NewRelay(db, s.dial("relay"), cfg)
}

func (s *settings) newWorker(ctx context.Context, db *pgxpool.Config) (*inbox.Worker, func(), error) {
	db.MaxConns = max(db.MaxConns, s.connections())
	pool, err := pgxpool.NewWithConfig(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	cfg := s.worker
	cfg.Metrics = s.metrics
	worker, err := inbox.NewWorker(pool, s.dial("worker"), cfg, s.handlers...)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return worker, func() {
		pool.Close()
		for _, release := range s.release {
			release()
		}
	}, nil
}

// serve runs services beside the HTTP server that tells how parts are.
func (s *settings) serve(ctx context.Context, ln net.Listener, parts []daemon.Part, services ...daemon.Service) error {
	mux := http.NewServeMux()
	daemon.HandleHealth(mux, s.metrics, parts...)
	if s.api != nil {
		s.api.Mount(mux)
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "started",
		slog.String("version", version()), slog.String("http_addr", ln.Addr().String()), slog.String("nats", s.nats.Redacted()))
	err := daemon.Run(ctx, slices.Concat([]daemon.Service{daemon.HTTP{Listener: ln, Handler: mux, Logger: s.log}}, services)...)
	if err == nil {
		s.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "stopped")
	}
	return err
}
