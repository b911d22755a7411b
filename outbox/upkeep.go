package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// healEvery is how soon a loss is noticed while the connection stays up.
const healEvery = 5 * time.Second

// maintain moves scheduled messages that are due, looks for losses, covers what is
// new and empties old children of the ring, until ctx is done.
func (s *session) maintain(ctx context.Context, due <-chan struct{}) error {
	keeper := &ring{conn: s.upkeep, retention: s.cfg.Retention, log: s.cfg.Logger}
	turn, heal := time.NewTicker(time.Minute), time.NewTicker(healEvery)
	defer turn.Stop()
	defer heal.Stop()
	for s.uncover(); ; {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			err = moveDue(ctx, s.upkeep)
		case <-s.uncovered:
			err = s.cover(ctx)
		case <-heal.C:
			err = s.heal(ctx)
		case <-s.purged:
			err = s.healer.confirm.check(ctx, s.healer, 0)
		case <-turn.C:
			err = s.turn(ctx, keeper)
		}
		if err != nil {
			return unlessDone(ctx, err)
		}
	}
}

// cover does a piece at a time, so that nothing else waits for long.
func (s *session) cover(ctx context.Context) error {
	more, err := s.covered.extend(ctx, s.upkeep)
	if more {
		s.uncover()
	}
	return err
}

// heal looks for losses. A loss that only the inbox shows is not looked for when
// a session starts: it takes time, and the lease would run out.
func (s *session) heal(ctx context.Context) error {
	s.lag(ctx)
	if err := s.healer.check(ctx); err != nil {
		return err
	}
	return s.healer.confirm.check(ctx, s.healer, s.cfg.ConfirmGrace)
}

// turn is what is done every minute: a stream that somebody has made to drop
// what it acknowledges ends the session, and the next one refuses or mends it.
func (s *session) turn(ctx context.Context, r *ring) error {
	if err := streams.Ensure(ctx, s.js, s.cfg.Streams, true); err != nil {
		return fmt.Errorf("verify streams: %w", err)
	}
	return r.turn(ctx)
}

// lag measures what is pending, which costs a query only while something is.
func (s *session) lag(ctx context.Context) {
	if !s.behind.Load() {
		s.m.noLag()
		return
	}
	s.m.measureLag(ctx, s.upkeep)
}

// moveDueSQL is one statement, so a row is either scheduled or in the outbox.
// SKIP LOCKED leaves alone what an application is about to cancel.
const moveDueSQL = `
WITH due AS (
	DELETE FROM jetbox.scheduled
	WHERE id = ANY (ARRAY (
		SELECT id FROM jetbox.scheduled
		WHERE run_at <= now()
		ORDER BY run_at, id
		LIMIT $1
		FOR UPDATE SKIP LOCKED))
	RETURNING id, run_at, message_id, subject, key, headers, payload, payload_bytes, content_type)
INSERT INTO jetbox.outbox (message_id, subject, key, headers, payload, payload_bytes, content_type)
SELECT message_id, subject, key, headers, payload, payload_bytes, content_type
FROM due
ORDER BY run_at, id`

// dueRows is how many due messages move in one transaction: few enough that
// the rest of the outbox hardly notices.
const dueRows = 2000

func moveDue(ctx context.Context, conn *pgx.Conn) error {
	for {
		tag, err := conn.Exec(ctx, moveDueSQL, dueRows)
		if err != nil {
			return fmt.Errorf("move scheduled messages: %w", err)
		}
		if tag.RowsAffected() < dueRows {
			return nil
		}
	}
}
