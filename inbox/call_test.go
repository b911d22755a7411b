package inbox

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A call may hold something while it waits, for which others wait then.
func TestPipeline_GivesUpWhereCallsHoldWhatOthersNeed(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	var mu sync.Mutex
	p, h := runIn(t, tx, 10, func(ctx context.Context, tx pgx.Tx, n int) error {
		mu.Lock()
		defer mu.Unlock()
		return insert(ctx, tx, n)
	})
	if got := did(t, tx); !slices.Equal(got, upTo(10)) || len(p.failed) > 0 {
		t.Errorf("effects %v, want those of all in order; failed: %v", got, failures(p))
	}
	if h.streak.calls.Load() >= 0 {
		t.Error("it may go on in pipelines")
	}
}

// The leak check of this package's tests sees a call that is left behind.
func TestPipeline_LeavesNoCallBehind(t *testing.T) {
	t.Parallel()
	for name, insert := range map[string]func(context.Context, pgx.Tx, int) error{
		"a wrapper that listens to its context": func(ctx context.Context, tx pgx.Tx, n int) error {
			if n == 7 {
				return errors.New("its own")
			}
			done := make(chan error, 1)
			go func() { done <- insert(ctx, tx, n) }()
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		"a wrapper that gives up": func(ctx context.Context, tx pgx.Tx, n int) error {
			if n == 9 { // by then the others wait
				time.Sleep(50 * time.Millisecond)
			}
			done := make(chan error, 1)
			go func() { done <- insert(ctx, tx, n) }()
			select {
			case err := <-done:
				return err
			case <-time.After(10 * time.Millisecond):
				return errors.New("gave up")
			}
		},
		"an argument that panics": func(ctx context.Context, tx pgx.Tx, n int) error {
			if n == 5 {
				_, err := tx.Exec(ctx, didSQL, panics{})
				return err
			}
			return insert(ctx, tx, n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
			var ended atomic.Int32
			h := HandleTx("n", func(ctx context.Context, tx pgx.Tx, m Message[int]) (any, error) {
				defer func() { ended.Add(1) }()
				return nil, insert(ctx, tx, m.Payload)
			})
			ds := deliver(t, 10)
			for _, d := range ds {
				d.payload, _ = h.decode(d)
			}
			p := &pipeline{h: &h, tx: tx, patience: time.NewTimer(batchTime)}
			p.ctx, p.cancel = context.WithCancel(t.Context())
			if err := p.run(t.Context(), ds); err == nil {
				t.Error("no error")
			}
			if int(ended.Load()) != len(p.calls) {
				t.Errorf("%d of %d calls ended", ended.Load(), len(p.calls))
			}
		})
	}
}

// panics is an argument that cannot be encoded.
type panics struct{}

func (panics) Value() (driver.Value, error) { panic("no value") }

// A goroutine that outlives its call has no part in the others.
func TestPipeline_RefusesAStatementOfACallThatHasEnded(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	var stray pgx.Tx
	p, _ := runIn(t, tx, 10, func(ctx context.Context, tx pgx.Tx, n int) error {
		switch n {
		case 3:
			stray = tx
			return nil
		case 5:
			if err := insert(ctx, stray, 3); !errors.Is(err, errTxShared) {
				return fmt.Errorf("a statement through another call's transaction: %w", err)
			}
		}
		return insert(ctx, tx, n)
	})
	if got, want := did(t, tx), slices.Delete(upTo(10), 3, 4); !slices.Equal(got, want) || len(p.failed) > 0 {
		t.Errorf("effects %v, want %v; failed: %v", got, want, failures(p))
	}
}

// Slow statements hold their locks together: once is enough.
func TestPipeline_EndsTheStreakOfSlowStatements(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	calls := 0
	p, h := runIn(t, tx, 10, func(ctx context.Context, tx pgx.Tx, n int) error {
		calls++
		_, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, (batchTime / 8).Seconds())
		return err
	})
	if calls != 10 || len(p.failed) > 0 {
		t.Errorf("%d calls, %v failed, want 10 and none", calls, failures(p))
	}
	if h.streak.calls.Load() >= 0 {
		t.Error("it may go on in pipelines")
	}
}

// Answers that nobody reads any more do not cost the connection.
func TestPipeline_KeepsTheConnectionWhenItEndsEarly(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	p, _ := runIn(t, tx, pipelined, func(ctx context.Context, tx pgx.Tx, n int) error {
		var text string
		err := tx.QueryRow(ctx, `SELECT repeat('x', $1)`, 20_000).Scan(&text)
		if n == 3 {
			time.Sleep(batchTime + 10*time.Millisecond)
		}
		if len(text) != strings.Count(text, "x") || len(text) != 20_000 {
			err = errors.Join(err, errors.New("not the answer"))
		}
		return err
	})
	if len(p.failed) > 0 || tx.Conn().IsClosed() {
		t.Errorf("failed: %v; connection closed: %v", failures(p), tx.Conn().IsClosed())
	}
}

// The calls of a pipeline share the time of one: what is too little for a call by
// then is no fault of its message.
func TestPipeline_BlamesNobodyForASharedDeadline(t *testing.T) {
	t.Parallel()
	tx, _ := beginIn(t, pgx.QueryExecModeCacheStatement)
	const n = 30
	p, _ := runIn(t, tx, n, func(ctx context.Context, tx pgx.Tx, n int) error {
		if end, _ := ctx.Deadline(); time.Until(end) < 2*batchTime-100*time.Millisecond {
			return context.DeadlineExceeded
		}
		time.Sleep(5 * time.Millisecond)
		return insert(ctx, tx, n)
	})
	if got := did(t, tx); !slices.Equal(got, upTo(n)) || len(p.failed) > 0 {
		t.Errorf("effects %v, want those of all in order; failed: %v", got, failures(p))
	}
}

func TestStreak_CountsPipelinesInVainOnceUntilItIsLongAgain(t *testing.T) {
	t.Parallel()
	var s streak
	calls := func() (n int) {
		for ; !s.long(); n++ {
			s.saw(1, 0)
		}
		return n
	}
	if n := calls(); n != longStreak {
		t.Errorf("long after %d calls, want %d", n, longStreak)
	}
	for _, want := range []int{penalty, 2 * penalty, 4 * penalty} {
		s.lose()
		s.lose() // of the same batch, or another lane's
		if n := calls(); n != want+longStreak {
			t.Errorf("long after %d calls, want %d", n, want+longStreak)
		}
	}
	for range 100 {
		s.win()
	}
	s.lose()
	if n := calls(); n != penalty+longStreak {
		t.Errorf("long after %d calls, want %d", n, penalty+longStreak)
	}
	for range 20 {
		s.lose()
		s.calls.Store(0)
	}
	if s.lose(); s.calls.Load() != -penalty<<10 {
		t.Errorf("%d calls, want %d", s.calls.Load(), -penalty<<10)
	}
}
