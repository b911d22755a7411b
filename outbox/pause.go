package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// errPaused ends a session whose pipeline has come to rest at an operator's word.
var errPaused = errors.New("paused by an operator")

const pauseSQL = `UPDATE jetbox.relay_lease SET paused_until = clock_timestamp() + $1::interval`

// Pause keeps every relay of a database from publishing for d from tx's commit
// on; zero lets them go on. The one that leads finishes what is in flight within
// about a second. Messages can be enqueued as before, and wait; those scheduled
// wait where they are.
func Pause(ctx context.Context, tx pgx.Tx, d time.Duration) error {
	if _, err := tx.Exec(ctx, pauseSQL, d); err != nil {
		return fmt.Errorf("outbox: pause: %w", err)
	}
	return nil
}

// rest holds the lease while the relay is paused, so that no other relay asks
// for it in vain. A paused relay does as it is told: it is healthy.
func (s *session) rest(ctx context.Context) error {
	for told := false; ; told = true {
		p, err := s.lease.renew(ctx)
		if err != nil || !p.paused {
			return err
		}
		s.healthy()
		s.m.measureLag(ctx, s.lease.conn)
		if !told {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "relay is paused", slog.String("owner", s.cfg.Owner))
		}
		if !wait.Sleep(ctx, s.beatEvery()) {
			return ctx.Err()
		}
	}
}
