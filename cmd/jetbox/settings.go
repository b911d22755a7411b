package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/api"
	"github.com/jetboxhq/jetbox/internal/config"
	"github.com/jetboxhq/jetbox/internal/natsconn"
	"github.com/jetboxhq/jetbox/internal/telemetry"
	"github.com/jetboxhq/jetbox/outbox"
)

// daemonFlags are what relay, worker and up have in common. A flag wins over
// its variable, and a variable over jetbox.yaml.
type daemonFlags struct {
	databaseFlags
	natsFlags
	Config          string `placeholder:"FILE" help:"Streams and handlers (JETBOX_CONFIG; default jetbox.yaml if there is one)."`
	Streams         string `placeholder:"ensure" help:"ensure makes the streams what jetbox.yaml says, verify only looks (JETBOX_STREAMS)."`
	HTTPAddr        string `name:"http-addr" placeholder:"127.0.0.1:8080" help:"Where /healthz, /readyz and /metrics are (HTTP_ADDR)."`
	LogLevel        string `placeholder:"info" help:"debug, info, warn or error (LOG_LEVEL)."`
	LogFormat       string `placeholder:"auto" help:"auto, json or text (LOG_FORMAT)."`
	OutboxRetention string `placeholder:"24h" help:"How long sent messages stay in the outbox (OUTBOX_RETENTION)."`
	InboxRetention  string `placeholder:"336h" help:"How long the inbox remembers a message (INBOX_RETENTION)."`
	AckWait         string `placeholder:"30s" help:"How long NATS waits for a settlement (ACK_WAIT)."`
	ShutdownTimeout string `placeholder:"DURATION" help:"How long begun work may take to finish: 10s for a relay and 25s for a worker if not given (SHUTDOWN_TIMEOUT)."`
	ConfirmConsumer string `placeholder:"worker" help:"Publish again what this consumer's inbox lacks though nothing is left, as after a purge (JETBOX_CONFIRM_CONSUMER)."`
}

// settings are flags, variables and jetbox.yaml as one.
type settings struct {
	env      environment
	log      *slog.Logger
	metrics  *prometheus.Registry
	httpAddr string
	nats     natsconn.Config
	relay    outbox.RelayConfig
	worker   inbox.WorkerConfig
	wanted   []config.Handler // as jetbox.yaml has them
	handlers []inbox.Handler
	release  []func() // what handlers keep open
	subject  string   // of a job that names none
	api      *api.API // nil: this daemon has none
	mistakes []error
}

func (f daemonFlags) settings(w world) *settings {
	s := &settings{env: newEnvironment(w.environ), metrics: telemetry.NewRegistry(version())}
	s.httpAddr = cmp.Or(s.env.or(f.HTTPAddr, "HTTP_ADDR"), "127.0.0.1:8080")
	s.note(checkAddr(s.httpAddr))
	s.log = s.logger(f, w)
	nats, err := f.natsFlags.config(s.env)
	s.nats = nats
	s.note(err)
	file := s.file(f.Config)
	s.worker = s.workerConfig(f, file)
	s.relay = s.relayConfig(f, file)
	s.wanted = file.Worker.Handlers
	s.checkRetention()
	return s
}

// checkRetention notes an inbox that would forget a message which can still come.
func (s *settings) checkRetention() {
	remembers := s.worker.Retention
	if s.relay.Retention >= remembers {
		s.note(fmt.Errorf("INBOX_RETENTION is %s and OUTBOX_RETENTION %s: the inbox must remember longer than the outbox can replay",
			remembers, s.relay.Retention))
	}
	for _, c := range s.relay.Streams {
		if c.Name == s.worker.Stream && c.MaxAge > remembers {
			s.note(fmt.Errorf("INBOX_RETENTION is %s and stream %s keeps messages for max_age %s: make the inbox remember as long, or max_age shorter",
				remembers, c.Name, c.MaxAge))
		}
	}
}

func (s *settings) note(err error) {
	if err != nil {
		s.mistakes = append(s.mistakes, err)
	}
}

func (s *settings) logger(f daemonFlags, w world) *slog.Logger {
	log, err := telemetry.NewLogger(w.stderr, telemetry.LogConfig{
		Level:    s.env.or(f.LogLevel, "LOG_LEVEL"),
		Format:   s.env.or(f.LogFormat, "LOG_FORMAT"),
		Terminal: w.terminal,
		NoColor:  s.env["NO_COLOR"] != "",
	})
	s.note(err)
	return log
}

// file reads jetbox.yaml; only one that was asked for has to exist.
func (s *settings) file(flag string) config.File {
	path := s.env.or(flag, "JETBOX_CONFIG")
	file, err := config.Load(cmp.Or(path, "jetbox.yaml"))
	if path != "" || !errors.Is(err, fs.ErrNotExist) {
		s.note(err)
	}
	return file
}

func (s *settings) relayConfig(f daemonFlags, file config.File) outbox.RelayConfig {
	c := outbox.RelayConfig{
		Streams:      file.StreamConfigs(),
		Retention:    s.duration(f.OutboxRetention, "OUTBOX_RETENTION", file.Relay.Retention, 24*time.Hour),
		Lease:        time.Duration(file.Relay.Lease),
		FallbackPoll: time.Duration(file.Relay.FallbackPoll),
		DrainTimeout: s.duration(f.ShutdownTimeout, "SHUTDOWN_TIMEOUT", file.Relay.DrainTimeout, 0),
		Logger:       s.log,

		ConfirmConsumer: cmp.Or(s.env.or(f.ConfirmConsumer, "JETBOX_CONFIRM_CONSUMER"), file.Relay.ConfirmConsumer),
		ConfirmStream:   cmp.Or(file.Relay.ConfirmStream, s.worker.Stream),
		ConfirmGrace:    time.Duration(file.Relay.ConfirmGrace),
	}
	switch mode := s.env.or(f.Streams, "JETBOX_STREAMS"); mode {
	case "", "ensure":
	case "verify":
		c.VerifyStreams = true
	default:
		s.note(fmt.Errorf("--streams (or JETBOX_STREAMS): %q is not ensure or verify", mode))
	}
	return c
}

func (s *settings) workerConfig(f daemonFlags, file config.File) inbox.WorkerConfig {
	w := file.Worker
	stream := cmp.Or(w.Stream, file.StreamConfigs()[0].Name)
	return inbox.WorkerConfig{
		Stream:         stream,
		Consumer:       w.Consumer,
		FilterSubjects: workerSubjects(file, stream),
		BatchSize:      w.Batch,
		Concurrency:    w.Concurrency,
		Calls:          w.Calls,
		MaxAttempts:    w.MaxAttempts,
		RetryDelay:     time.Duration(w.RetryDelay),
		AckWait:        s.duration(f.AckWait, "ACK_WAIT", w.AckWait, 0),
		HandlerTimeout: time.Duration(w.HandlerTimeout),
		Retention:      s.duration(f.InboxRetention, "INBOX_RETENTION", w.Retention, 14*24*time.Hour),
		DrainTimeout:   s.duration(f.ShutdownTimeout, "SHUTDOWN_TIMEOUT", w.DrainTimeout, 0),
		Logger:         s.log,
	}
}

// workerSubjects is what the worker consumes. Of a work queue that is all: what
// it left there, nobody would take, or miss. Of other streams it is what the
// handlers are for, unless the file says otherwise.
func workerSubjects(file config.File, stream string) []string {
	if len(file.Worker.Subjects) > 0 {
		return file.Worker.Subjects
	}
	for _, c := range file.StreamConfigs() {
		if c.Name == stream && c.Retention == jetstream.WorkQueuePolicy {
			return c.Subjects
		}
	}
	return nil
}

func (s *settings) duration(flag, name string, file config.Duration, otherwise time.Duration) time.Duration {
	text := s.env.or(flag, name)
	if text == "" {
		return cmp.Or(time.Duration(file), otherwise)
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		s.note(fmt.Errorf("%s: %w", name, err))
		return otherwise
	}
	return d
}

// dial returns what opens a connection for a part of this process.
func (s *settings) dial(part string) func() (*nats.Conn, error) {
	return func() (*nats.Conn, error) {
		return s.nats.Dial("jetbox "+part, "_INBOX_"+part, natsconn.LogTo(s.log))
	}
}
