package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// healEvery is how soon a loss is noticed while the connection stays up.
const healEvery = 5 * time.Second

// turnEvery is between two looks at the ring, whatever became of the sessions
// between them.
const turnEvery = time.Minute

// maintain moves scheduled messages that are due, looks for losses, covers what is
// new and empties old children of the ring, until ctx is done.
func (s *session) maintain(ctx context.Context, due <-chan struct{}) error {
	keeper := &ring{conn: s.upkeep, retention: s.cfg.Retention, confirm: s.confirm, log: s.cfg.Logger}
	turn, heal := time.NewTimer(time.Until(s.turnAt)), time.NewTicker(healEvery)
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
			s.turnAt = time.Now().Add(turnEvery)
			turn.Reset(turnEvery)
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
