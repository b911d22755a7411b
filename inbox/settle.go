package inbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errStopping reports work not begun because the worker stops.
var errStopping = errors.New("worker is stopping")

// The outcomes of a delivery, as the metrics name them.
const (
	outcomeCommitted = "committed"
	outcomeDuplicate = "duplicate"
	outcomeRetry     = "retry"
	outcomeDead      = "dead"
	outcomeReturned  = "returned"
)

// ack must only be called once Postgres has confirmed the commit.
func (s *session) ack(ctx context.Context, d *delivery, outcome string) {
	s.settle(ctx, d, outcome, d.msg.Ack)
}

func (s *session) terminate(ctx context.Context, d *delivery, outcome, reason string) {
	s.settle(ctx, d, outcome, func() error { return d.msg.TermWithReason(line(reason, 200)) })
}

// retry asks for another attempt at d after the delay that cause calls for.
func (s *session) retry(ctx context.Context, d *delivery, cause error) {
	s.log.LogAttrs(ctx, slog.LevelWarn, "handler failed, will retry", d.attrs(cause)...)
	delay := retryDelay(cause, d.attempt, s.cfg.RetryDelay)
	s.settle(ctx, d, outcomeRetry, func() error { return d.msg.NakWithDelay(delay) })
}

// postpone gives back what is left of batch because of err, which is no fault
// of its messages: at once when the worker stops, else after a while.
func (s *session) postpone(ctx context.Context, batch []*delivery, err error) {
	if s.isStopping() || ctx.Err() != nil {
		s.giveBack(ctx, batch, 0)
		return
	}
	level := slog.LevelError
	if isAway(err) {
		level = slog.LevelDebug // insist has said so
	}
	s.log.LogAttrs(ctx, level, "batch postponed", slog.Int("batch", len(batch)), slog.Any("error", err))
	delay := min(s.cfg.RetryDelay, maxDelay)
	s.giveBack(ctx, batch, delay+rand.N(4*delay))
}

// giveBack asks for the redelivery of what is not settled yet.
func (s *session) giveBack(ctx context.Context, ds []*delivery, delay time.Duration) {
	for _, d := range ds {
		s.settle(ctx, d, outcomeReturned, func() error { return d.msg.NakWithDelay(delay) })
	}
}

// settle tells the broker once what became of d. If that fails, d is delivered
// again and the inbox knows it.
func (s *session) settle(ctx context.Context, d *delivery, outcome string, tell func() error) {
	if !s.held.remove(d) {
		return
	}
	if err := tell(); err != nil {
		s.metrics.ackFailures.Inc()
		s.log.LogAttrs(ctx, slog.LevelDebug, "settlement not sent", d.attrs(err)...)
	}
	s.metrics.settled(d, outcome)
}

// insist repeats step while Postgres is away, for as long as a redelivery
// elsewhere would take, unless the worker stops.
func (s *session) insist(ctx context.Context, step func() error) error {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 50*time.Millisecond, 5*time.Second
	for until := time.Now().Add(s.cfg.AckWait); ; {
		err := step()
		s.leaveStandby(err)
		s.noteOutage(ctx, err)
		if !isAway(err) || time.Now().After(until) || !s.sleep(ctx, delays.NextBackOff()) {
			return err
		}
	}
}

// untilBegun insists on step until its transaction has begun: what goes wrong
// after that may be a message's doing.
func (s *session) untilBegun(ctx context.Context, step func() error) error {
	var begun error
	err := s.insist(ctx, func() error {
		err := step()
		if e, ok := errors.AsType[*awayError](err); ok && e.begun {
			s.leaveStandby(err)
			begun = err
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return begun
}

// leaveStandby has the pool connect anew when err says that the server may not
// write. The connections to a primary that a failover has made a standby stay
// healthy; only new ones find out who is the primary now.
func (w *Worker) leaveStandby(err error) {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != readOnly {
		return
	}
	now, last := time.Now().UnixNano(), w.left.Load()
	if now-last > int64(standbyPause) && w.left.CompareAndSwap(last, now) {
		w.db.Reset()
	}
}

// standbyPause is between two times that the worker drops the pool's connections:
// while there is no primary, every lane comes upon the standby again and again.
const standbyPause = time.Second

// noteOutage logs the beginning and the end of an outage, not each message it
// holds up.
func (s *session) noteOutage(ctx context.Context, err error) {
	switch {
	case isAway(err) && ctx.Err() == nil && s.outage.CompareAndSwap(false, true):
		s.log.LogAttrs(ctx, slog.LevelWarn, "postgres error, messages wait", slog.Any("error", err))
	case err == nil && s.outage.CompareAndSwap(true, false):
		s.log.LogAttrs(ctx, slog.LevelInfo, "postgres works again")
	}
}

// sleep waits for d and reports whether the session still runs at the end.
func (s *session) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stopping:
	case <-ctx.Done():
	}
	return false
}

// line is the first line of text, at most n bytes of it.
func line(text string, n int) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.ToValidUTF8(text[:min(len(text), n)], "")
}
