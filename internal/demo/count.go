package demo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Progress is how far things are while the demo runs.
type Progress struct{ Committed, Published, Effects int64 }

const progressSQL = `
SELECT (SELECT count(*) FROM shop.orders),
	(SELECT count(*) FROM jetbox.outbox_status WHERE state = 'sent'),
	(SELECT count(*) FROM shop.effect)`

// report shows the progress, several times a second, until ctx is done.
func (s *stage) report(ctx context.Context) {
	if s.Progress == nil {
		return
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var p Progress
		if s.db.QueryRow(ctx, progressSQL).Scan(&p.Committed, &p.Published, &p.Effects) == nil {
			s.Progress(p)
		}
	}
}

const pendingSQL = `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'pending'`

// settle waits until nothing is on its way: no message waits for the relay, and
// then none is in the stream, which is a work queue. What takes longer than
// patience is lost.
func (s *stage) settle(ctx context.Context) error {
	s.Say("settling  no more orders")
	err := until(ctx, patience, func() (bool, error) {
		pending, err := s.number(ctx, pendingSQL)
		if err != nil || pending > 0 {
			return false, err
		}
		info, err := s.stream.Info(ctx)
		return err == nil && info.State.Msgs == 0, nil
	})
	if errors.Is(err, errMissed) {
		return nil
	}
	return err
}

const countSQL = `
SELECT (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM shop.effect),
	(SELECT count(*) FROM shop.orders o WHERE NOT EXISTS (SELECT FROM shop.effect e WHERE e.order_id = o.id)),
	(SELECT count(*) - count(DISTINCT order_id) FROM shop.effect),
	(SELECT count(*) FROM shop.effect e WHERE NOT EXISTS (SELECT FROM shop.orders o WHERE o.id = e.order_id))`

func (s *stage) count(ctx context.Context) (Result, error) {
	r := s.result
	if err := s.db.QueryRow(ctx, countSQL).Scan(&r.Committed, &r.Effects, &r.Lost, &r.Doubled, &r.Phantom); err != nil {
		return r, fmt.Errorf("count: %w", err)
	}
	info, err := s.stream.Info(ctx)
	if err != nil {
		return r, fmt.Errorf("stream info: %w", err)
	}
	r.Published = int64(info.State.LastSeq)
	return r, nil
}

func (s *stage) number(ctx context.Context, sql string, args ...any) (n int64, err error) {
	if err := s.db.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	return n, nil
}

// patience is how long a loaded machine may take for one thing.
const patience = time.Minute

// grip is how long a process is held in one attempt to catch it.
const grip = 2 * time.Second

var errMissed = errors.New("it did not happen in time")

// until asks done every 20 ms, for at most d.
func until(ctx context.Context, d time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return errMissed
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
