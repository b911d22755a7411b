package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/outbox"
)

// pauseFlags say what is held, on which side of the broker.
type pauseFlags struct {
	operatorFlags
	consumerFlags
	What string `arg:"" optional:"" enum:"consumer,relay" default:"consumer" help:"consumer, which then processes nothing, or relay, which then publishes nothing."`
}

type pauseCommand struct {
	pauseFlags
	For time.Duration `default:"87600h" help:"Until then; if not given, until jetbox resume."`
}

func (c pauseCommand) Run(ctx context.Context, w world) error {
	if c.For <= 0 {
		return mistakes{fmt.Errorf("--for %s is not above zero", c.For)}
	}
	return c.set(ctx, w, operator.ActionPause, c.For)
}

type resumeCommand struct{ pauseFlags }

func (c resumeCommand) Run(ctx context.Context, w world) error {
	return c.set(ctx, w, operator.ActionResume, 0)
}

// set pauses for d, or resumes if that is zero.
func (f pauseFlags) set(ctx context.Context, w world, action string, d time.Duration) error {
	if f.What == "relay" {
		return f.setRelay(ctx, w, action, d)
	}
	return f.setConsumer(ctx, w, action, d)
}

// setRelay is one transaction with its line in the audit.
func (f pauseFlags) setRelay(ctx context.Context, w world, action string, d time.Duration) error {
	return f.with(ctx, w, func(conn *pgx.Conn) error {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := outbox.Pause(ctx, tx, d); err != nil {
				return err
			}
			return operator.Record(ctx, tx, operator.Action{Actor: actor(), Action: action, Details: json.RawMessage(`{"what": "relay"}`)})
		})
		if err != nil {
			return err
		}
		return f.say(w, paused{Action: action, What: "relay"}, action+": relay")
	})
}

// paused is what was held, or goes on.
type paused struct {
	Action   string `json:"action"`
	What     string `json:"what"`
	Consumer string `json:"consumer,omitempty"`
	Stream   string `json:"stream,omitempty"`
}

// setConsumer tells the broker, which keeps it over restarts of all parts, and
// then the audit.
func (f pauseFlags) setConsumer(ctx context.Context, w world, action string, d time.Duration) error {
	place, err := f.place(w, f.DataDir)
	if err != nil {
		return err
	}
	return f.with(ctx, w, func(conn *pgx.Conn) error {
		nc, js, err := place.open()
		if err != nil {
			return err
		}
		defer nc.Close()
		if action == operator.ActionResume {
			_, err = js.ResumeConsumer(ctx, place.stream, place.name)
		} else {
			_, err = js.PauseConsumer(ctx, place.stream, place.name, time.Now().Add(d))
		}
		if err != nil {
			return place.missing(err)
		}
		said := f.say(w, paused{Action: action, What: "consumer", Consumer: place.name, Stream: place.stream},
			fmt.Sprintf("%s: consumer %s of stream %s", action, place.name, place.stream))
		return errors.Join(said, operator.Record(ctx, conn, operator.Action{Actor: actor(), Action: action, Consumer: &place.name}))
	})
}
