package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/operator"
)

type consumerFlags struct {
	operatorFlags
	natsFlags
	Config   string `placeholder:"FILE" help:"Names the worker's stream and consumer (JETBOX_CONFIG; default jetbox.yaml if there is one)."`
	Stream   string `help:"Another stream."`
	Consumer string `help:"Another consumer."`
}

type pauseCommand struct {
	consumerFlags
	For time.Duration `default:"87600h" help:"Until then; if not given, until jetbox resume."`
}

func (c pauseCommand) Run(ctx context.Context, w world) error {
	if c.For <= 0 {
		return mistakes{fmt.Errorf("--for %s is not above zero", c.For)}
	}
	return c.setPause(ctx, w, operator.ActionPause, time.Now().Add(c.For))
}

type resumeCommand struct{ consumerFlags }

func (c resumeCommand) Run(ctx context.Context, w world) error {
	return c.setPause(ctx, w, operator.ActionResume, time.Time{})
}

// setPause tells the broker, which keeps it over restarts of all parts, and
// then the audit.
func (f consumerFlags) setPause(ctx context.Context, w world, action string, until time.Time) error {
	s := &settings{env: newEnvironment(w.environ)}
	file := s.file(f.Config)
	broker, err := f.broker(w, f.DataDir)
	s.note(err)
	if err := found(s.mistakes...); err != nil {
		return err
	}
	stream := cmp.Or(f.Stream, file.Worker.Stream, file.StreamConfigs()[0].Name)
	consumer := cmp.Or(f.Consumer, file.Worker.Consumer, "worker")
	return f.with(ctx, w, func(conn *pgx.Conn) error {
		nc, err := broker.Dial("jetbox operator", "_INBOX_operator")
		if err != nil {
			return fmt.Errorf("%w: connect to NATS: %w", errUnreachable, err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		if _, err := js.PauseConsumer(ctx, stream, consumer, until); err != nil {
			return pauseError(stream, consumer, err)
		}
		_, _ = fmt.Fprintf(w.stdout, "%s: consumer %s of stream %s\n", action, consumer, stream)
		return operator.Record(ctx, conn, operator.Action{Actor: actor(), Action: action, Consumer: &consumer})
	})
}

func pauseError(stream, consumer string, err error) error {
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return mistakes{fmt.Errorf("there is no consumer %s on stream %s: a worker makes it when it first starts", consumer, stream)}
	}
	return fmt.Errorf("consumer %s of stream %s: %w", consumer, stream, err)
}
