package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// builtinHandlers are for a first look, before jetbox.yaml names any: each shows
// one way in which a message can end.
func builtinHandlers() []inbox.Handler {
	return []inbox.Handler{
		inbox.HandleTx("jobs.echo", echo),
		inbox.Handle("jobs.sleep", nap),
		inbox.HandleTx("jobs.flaky", flaky),
		inbox.HandleTx("jobs.fail", fail),
	}
}

func echo(_ context.Context, _ pgx.Tx, msg inbox.Message[json.RawMessage]) (json.RawMessage, error) {
	return msg.Payload, nil
}

type napPayload struct {
	Milliseconds int `json:"ms"`
}

func nap(ctx context.Context, msg inbox.Message[napPayload]) (napPayload, error) {
	if !wait.Sleep(ctx, time.Duration(msg.Payload.Milliseconds)*time.Millisecond) {
		return napPayload{}, context.Cause(ctx)
	}
	return msg.Payload, nil
}

func flaky(_ context.Context, _ pgx.Tx, msg inbox.Message[json.RawMessage]) (map[string]int, error) {
	if msg.Attempt < 3 {
		return nil, inbox.RetryAfter(100*time.Millisecond, errors.New("jobs.flaky fails its first two attempts"))
	}
	return map[string]int{"attempt": msg.Attempt}, nil
}

func fail(context.Context, pgx.Tx, inbox.Message[json.RawMessage]) (any, error) {
	return nil, inbox.Permanent(errors.New("jobs.fail always fails"))
}
