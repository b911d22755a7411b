package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// prepare waits for Postgres, learns which days the inbox covers and looks up
// what the handlers need.
func (w *Worker) prepare(ctx context.Context) error {
	delays := backoff.NewExponentialBackOff()
	delays.MaxInterval = 10 * time.Second
	for {
		err := w.prepareOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !isAway(err) {
			return fmt.Errorf("inbox: prepare: %w", err)
		}
		w.log.LogAttrs(ctx, slog.LevelWarn, "postgres is away, worker waits", slog.Any("error", err))
		wait.Sleep(ctx, delays.NextBackOff())
	}
}

func (w *Worker) prepareOnce(ctx context.Context) error {
	if err := w.refreshDays(ctx); err != nil {
		return unlessLasting(err)
	}
	var b pgx.Batch
	askKnown(&b, w.cfg.Consumer, nil) // may we, and is there an answer?
	if err := w.db.SendBatch(ctx, &b).Close(); err != nil {
		return unlessLasting(fmt.Errorf("ask for known messages: %w", err))
	}
	var errs []error
	for i := range w.handlers {
		if h := &w.handlers[i]; h.prepare != nil {
			var err error
			h.runSet, err = h.prepare(ctx, w.db)
			errs = append(errs, err)
		}
	}
	return unlessLasting(errors.Join(errs...))
}

// unlessLasting marks err as passing, unless it says that something is missing
// or forbidden in the database, or did not come from Postgres at all.
func unlessLasting(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok && errors.Is(err, ErrFunction) {
		return err
	}
	if ok {
		switch e.Code[:2] {
		case "42", "3F", "3D", "28": // undefined or not permitted; no schema, no database, no entry
			return fmt.Errorf("%w (is the schema migrated, and may this role use it?)", err)
		}
	}
	return away(err)
}

// days is what the inbox has partitions for: from first up to before end.
type days struct{ first, end time.Time }

// cover says whether the inbox can tell if a message of that day was processed.
func (d *days) cover(day pgtype.Date) bool {
	return day.InfinityModifier != pgtype.Finite || (!day.Time.Before(d.first) && day.Time.Before(d.end))
}

func (w *Worker) refreshDays(ctx context.Context) error {
	first, end, err := maintain(ctx, w.db, w.cfg.Retention)
	if err != nil {
		w.leaveStandby(err)
		return err
	}
	w.days.Store(&days{first, end})
	return nil
}

// keepDays has the inbox's partitions made and dropped every hour.
func (w *Worker) keepDays(ctx context.Context) error {
	for wait.Sleep(ctx, time.Hour) {
		if err := w.refreshDays(ctx); err != nil && ctx.Err() == nil {
			w.log.LogAttrs(ctx, slog.LevelWarn, "inbox upkeep failed, will try in an hour", slog.Any("error", err))
		}
	}
	return nil
}
