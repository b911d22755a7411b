package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

// maxReason bounds a dead letter's reason; its errors say more.
const maxReason = 1000

// bury makes dead letters of ds, and only then ends their deliveries.
func (s *session) bury(ctx context.Context, ds []*delivery) error {
	if len(ds) == 0 {
		return nil
	}
	var k known
	err := s.insist(ctx, func() error {
		return inTx(ctx, s.db,
			func(b *pgx.Batch) { k = askKnown(b, s.cfg.Consumer, ds) },
			func(tx pgx.Tx, _ *pgx.Batch) error {
				_, _, rest := k.split(ds)
				return s.writeLetters(ctx, tx, rest)
			})
	})
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	done, dead, buried := k.split(ds)
	for _, d := range buried {
		s.log.LogAttrs(ctx, slog.LevelError, "message is a dead letter", d.attrs(s.reason(d))...)
		s.terminate(ctx, d, outcomeDead, s.reason(d).Error())
	}
	return s.settleKnown(ctx, done, dead)
}

// writeLetters writes a letter for each of ds, in place of its attempts.
func (s *session) writeLetters(ctx context.Context, tx pgx.Tx, ds []*delivery) error {
	letters := make([]deadletter.Letter, len(ds))
	for i, d := range ds {
		var err error
		if letters[i], err = s.letter(ctx, tx, d); err != nil {
			return err
		}
	}
	if err := deadletter.Insert(ctx, tx, letters...); err != nil {
		return err
	}
	return forget(ctx, tx, s.cfg.Consumer, ds)
}

func (s *session) letter(ctx context.Context, tx pgx.Tx, d *delivery) (deadletter.Letter, error) {
	l := deadletter.Letter{
		MessageID: d.env.ID, Consumer: s.cfg.Consumer, Subject: d.msg.Subject(), Key: d.env.Key,
		Headers: d.env.Headers, Payload: d.msg.Data(), ContentType: d.env.ContentType,
		Reason: line(s.reason(d).Error(), maxReason),
		Stream: d.meta.Stream, StreamSeq: d.meta.Sequence.Stream,
	}
	if d.failure != nil {
		if err := noteAttempt(ctx, tx, s.cfg.Consumer, d, d.failure.Error()); err != nil {
			return l, err
		}
	}
	var err error
	if d.failure != nil || d.again() {
		l.Errors, err = failed(ctx, tx, s.cfg.Consumer, d)
	}
	l.Attempts = len(l.Errors)
	return l, err
}

// reason is why d is dead.
func (s *session) reason(d *delivery) error {
	if d.failure == nil {
		return d.refusal
	}
	if _, permanent := errors.AsType[*permanentError](d.failure); permanent {
		return d.failure
	}
	return fmt.Errorf("attempt %d of %d failed: %w", d.attempt, d.handler.limits.MaxAttempts, d.failure)
}
