package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// patient is a worker on a Postgres that was made a moment ago, where nobody can
// have created the functions of its handlers: it waits for them.
type patient struct {
	*inbox.Worker
	log *slog.Logger
}

func (p patient) Run(ctx context.Context) error {
	for said := ""; ; {
		err := p.Worker.Run(ctx)
		if !errors.Is(err, inbox.ErrFunction) {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			p.log.LogAttrs(ctx, slog.LevelWarn, "worker waits for what its handlers need: create it with psql", slog.Any("error", err))
		}
		if !wait.Sleep(ctx, time.Second) {
			return nil
		}
	}
}
