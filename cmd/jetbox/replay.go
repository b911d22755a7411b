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

type replayCommand struct {
	operatorFlags
	Since  string `placeholder:"TIME" help:"From batches of this time, such as 2026-11-22T10:00:00Z, or this long ago, such as 90m."`
	FromID int64  `name:"from-id" placeholder:"ID" help:"From the batch with this outbox id."`
	Batch  int64  `placeholder:"SEQ" help:"From this batch of the ledger."`
	DryRun bool   `help:"Only say what would be published again."`
	Yes    bool   `help:"Really. Inboxes absorb the repeats; other consumers of the stream see them."`
}

func (c replayCommand) Run(ctx context.Context, w world) error {
	from, err := c.from(time.Now())
	if err != nil {
		return mistakes{err}
	}
	if !c.Yes && !c.DryRun {
		return mistakes{errors.New("replay publishes messages again: add --yes if you mean it, or --dry-run to look")}
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		r, err := c.replay(ctx, conn, from)
		if errors.Is(err, outbox.ErrReplayFrom) {
			return mistakes{errors.New("give exactly one of --since, --from-id and --batch")}
		}
		if err != nil {
			return err
		}
		return show(c.operatorFlags, w, "AFTER BATCH\tMESSAGES", []outbox.Replay{r}, func(r outbox.Replay) string {
			return fmt.Sprintf("%d\t%d", r.AfterBatch, r.Messages)
		})
	})
}

// from reads --since, which may be a time or a duration.
func (c replayCommand) from(now time.Time) (outbox.ReplayFrom, error) {
	from := outbox.ReplayFrom{FromID: c.FromID, Batch: c.Batch}
	if c.Since == "" {
		return from, nil
	}
	if ago, err := time.ParseDuration(c.Since); err == nil && ago > 0 {
		from.Since = now.Add(-ago)
		return from, nil
	}
	var err error
	if from.Since, err = time.Parse(time.RFC3339, c.Since); err != nil {
		return from, fmt.Errorf("--since: %q is not a time such as 2026-11-22T10:00:00Z, nor a duration such as 90m", c.Since)
	}
	return from, nil
}

func (c replayCommand) replay(ctx context.Context, conn *pgx.Conn, from outbox.ReplayFrom) (r outbox.Replay, err error) {
	if c.DryRun {
		return outbox.PlanReplay(ctx, conn, from)
	}
	for {
		r, err = c.start(ctx, conn, from)
		if !errors.Is(err, outbox.ErrReplayRaced) {
			return r, err
		}
	}
}

// start sends the relay back last, as it cannot record a batch until the commit.
func (c replayCommand) start(ctx context.Context, conn *pgx.Conn, from outbox.ReplayFrom) (r outbox.Replay, err error) {
	return r, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if r, err = outbox.PlanReplay(ctx, tx, from); err != nil {
			return err
		}
		details, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := operator.Record(ctx, tx, operator.Action{Actor: actor(), Action: operator.ActionReplay, Details: details}); err != nil {
			return err
		}
		return outbox.StartReplay(ctx, tx, r)
	})
}
