package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/internal/wait"
	"github.com/jetboxhq/jetbox/outbox"
)

type sendCommand struct {
	operatorFlags
	Subject string            `arg:"" help:"Such as jobs.email."`
	Payload string            `arg:"" help:"JSON."`
	Key     string            `help:"Ordering key."`
	Header  map[string]string `mapsep:"none" help:"NAME=VALUE; may be given several times."`
	In      time.Duration     `help:"Not now but this much later, such as 90s."`
	Wait    time.Duration     `help:"Wait so long for the end, and show it: exit code 1 if the message is not done by then."`
}

func (c sendCommand) Run(ctx context.Context, w world) error {
	if !json.Valid([]byte(c.Payload)) {
		return mistakes{errors.New("the payload is not JSON: in a shell, quote it like '{\"to\": \"ada\"}'")}
	}
	if c.In < 0 {
		return mistakes{fmt.Errorf("--in %s lies in the past", c.In)}
	}
	if c.Wait < 0 {
		return mistakes{fmt.Errorf("--wait %s is less than nothing", c.Wait)}
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		at := time.Now().Add(c.In)
		m := outbox.Message{ID: outbox.NewID(at), Subject: c.Subject, Key: c.Key, Headers: c.Header, Payload: json.RawMessage(c.Payload)}
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if c.In > 0 {
				return outbox.Schedule(ctx, tx, at, m)
			}
			return outbox.Enqueue(ctx, tx, m)
		})
		if rule := outbox.BrokenRule(err); rule != "" {
			return mistakes{fmt.Errorf("the outbox refuses the message: %s", rule)}
		}
		if err != nil {
			return err
		}
		s, err := c.report(ctx, w, conn, m.ID)
		if err != nil {
			return fmt.Errorf("message %s is enqueued, but what has become of it cannot be shown: %w", m.ID, err)
		}
		return c.judge(s)
	})
}

// report shows the message's status, at its end if that is waited for.
func (c sendCommand) report(ctx context.Context, w world, conn *pgx.Conn, id uuid.UUID) (operator.Status, error) {
	deadline := time.Now().Add(c.Wait)
	s, err := operator.ReadStatus(ctx, conn, id)
	for err == nil && !s.Ended() && time.Now().Before(deadline) && wait.Sleep(ctx, 50*time.Millisecond) {
		s, err = operator.ReadStatus(ctx, conn, id)
	}
	if err != nil {
		return s, err
	}
	return s, show(c.operatorFlags, w, "ID\tSTATUS\tRESULT", []operator.Status{s}, func(s operator.Status) string {
		text := string(s.Result)
		if s.Reason != nil {
			text = *s.Reason
		}
		return fmt.Sprintf("%s\t%s\t%s", s.ID, s.Status, harmless(text))
	})
}

// judge lets a script see by the exit code whether what it waited for is done.
func (c sendCommand) judge(s operator.Status) error {
	switch {
	case c.Wait == 0 || s.Status == operator.Done:
		return nil
	case s.Ended():
		return fmt.Errorf("message %s is %s: jetbox show %s tells how it came to that", s.ID, s.Status, s.ID)
	}
	return fmt.Errorf("message %s is %s after %s: jetbox show %s tells what has become of it", s.ID, s.Status, c.Wait, s.ID)
}
