package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// oneByOne settles each of ds in a transaction of its own, up to an error that
// concerns them all.
func (s *session) oneByOne(ctx context.Context, ds []*delivery) error {
	for i, d := range ds {
		if i > 0 && s.isStopping() {
			return errStopping
		}
		if err := s.alone(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// alone settles d, or returns why it cannot be settled now.
func (s *session) alone(ctx context.Context, d *delivery) error {
	k, err := s.lookUp(ctx, []*delivery{d})
	if err != nil {
		return err
	}
	if done, dead, rest := k.split([]*delivery{d}); len(rest) == 0 {
		return s.settleKnown(ctx, done, dead)
	}
	if d.attempt > d.handler.limits.MaxAttempts {
		d.refusal = fmt.Errorf("%d attempts failed", d.handler.limits.MaxAttempts)
		return s.bury(ctx, []*delivery{d})
	}
	if d.suspect {
		release, err := s.isolateSuspect(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	return s.attemptAlone(ctx, d)
}

// lookUp asks what the database has of ds, and sets which attempts these are.
func (s *session) lookUp(ctx context.Context, ds []*delivery) (k known, err error) {
	err = s.insist(ctx, func() error {
		var b pgx.Batch
		k = askKnown(&b, s.cfg.Consumer, ds)
		askAttempts(&b, s.cfg.Consumer, ds)
		return away(s.db.SendBatch(ctx, &b).Close())
	})
	if err != nil {
		return k, fmt.Errorf("look up: %w", err)
	}
	return k, nil
}

// isolateSuspect waits for its turn: two messages of which one may kill the
// process are not run side by side.
func (s *session) isolateSuspect(ctx context.Context) (release func(), err error) {
	select {
	case s.suspect <- struct{}{}:
		return func() { <-s.suspect }, nil
	case <-s.stopping:
		return nil, errStopping
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// attemptAlone runs d once and settles it by the outcome.
func (s *session) attemptAlone(ctx context.Context, d *delivery) error {
	marked := !d.explained()
	if marked {
		if err := s.note(ctx, d, unfinished); err != nil {
			return err
		}
	}
	start := time.Now()
	err := s.perform(ctx, d)
	switch {
	case err == nil:
		s.metrics.committed([]*delivery{d}, time.Since(start))
		s.ack(ctx, d, outcomeCommitted)
		return nil
	case errors.Is(err, errDuplicate):
		return s.settleKnown(ctx, []*delivery{d}, nil)
	case ctx.Err() != nil || isAway(err):
		if marked {
			s.unmark(ctx, d)
		}
		return err
	}
	return s.fail(ctx, d, err)
}

// perform runs d's handler and commits its ID and result.
func (s *session) perform(ctx context.Context, d *delivery) error {
	if d.handler.call == nil {
		return s.blame(ctx, func() error {
			return s.commitAlone(ctx, d, func(tx pgx.Tx) (*string, error) { return runAlone(ctx, tx, d) })
		})
	}
	result, err := runAlone(ctx, nil, d)
	if err != nil {
		return err
	}
	// Its effects are out already: an error here must not call it again.
	return s.insist(ctx, func() error {
		return s.commitAlone(ctx, d, func(pgx.Tx) (*string, error) { return result, nil })
	})
}

// runAlone runs the handler, in tx if its effects are there, on a copy of d that
// is decoded anew: an earlier attempt may have changed the payload. It returns
// the result.
func runAlone(ctx context.Context, tx pgx.Tx, d *delivery) (*string, error) {
	own := copies([]*delivery{d})
	return protect(ctx, func(call caller) (_ *string, err error) {
		if own[0].payload, err = d.handler.decode(own[0]); err != nil {
			return nil, Permanent(err)
		}
		if d.handler.call != nil {
			err = call(d.handler.limits.Timeout, func(ctx context.Context) error { return d.handler.call(ctx, own[0]) })
		} else {
			err = runHandler(call, tx, d.handler, own, 1)
		}
		return own[0].result, err
	})
}

// commitAlone commits fn's effects with d's ID and result.
func (s *session) commitAlone(ctx context.Context, d *delivery, fn func(pgx.Tx) (*string, error)) error {
	return inTx(ctx, s.db, nil, func(tx pgx.Tx, last *pgx.Batch) (err error) {
		if d.result, err = fn(tx); err == nil {
			record(last, s.cfg.Consumer, []*delivery{d})
		}
		return err
	})
}

// note puts d's attempt on record as one that ended with cause.
func (s *session) note(ctx context.Context, d *delivery, cause string) error {
	return s.insist(ctx, func() error { return away(noteAttempt(ctx, s.db, s.cfg.Consumer, d, cause)) })
}

// unmark takes back an attempt that the worker cut short. Should that fail too,
// the attempt counts: one outage costs a message one attempt at most.
func (s *session) unmark(ctx context.Context, d *delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := takeBack(ctx, s.db, s.cfg.Consumer, d); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "interrupted attempt stays on record", d.attrs(err)...)
	}
}

// maxBroken is how often running a message may break its connection within a
// transaction before it is the message's own failure.
const maxBroken = 3

// blame insists on step, but not for ever when Postgres answers each time and
// step breaks its connection each time. Where the connection holds, Postgres has
// said that its error passes.
func (s *session) blame(ctx context.Context, step func() error) error {
	broken := 0
	return s.insist(ctx, func() error {
		err := step()
		if e, ok := errors.AsType[*awayError](err); ok && e.broken {
			if broken++; broken == maxBroken {
				return fmt.Errorf("%d times running: %w", broken, e.err)
			}
		}
		return err
	})
}

// fail puts a failed attempt on record and asks for another, or gives up.
func (s *session) fail(ctx context.Context, d *delivery, cause error) error {
	if d.isLast(cause) {
		d.failure = cause
		return s.bury(ctx, []*delivery{d})
	}
	if err := s.note(ctx, d, cause.Error()); err != nil {
		return err
	}
	s.retry(ctx, d, cause)
	return nil
}

// isLast says whether an attempt that failed with cause was the last.
func (d *delivery) isLast(cause error) bool {
	_, permanent := errors.AsType[*permanentError](cause)
	return permanent || d.attempt >= d.handler.limits.MaxAttempts
}
