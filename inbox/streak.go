package inbox

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// streak counts the calls in a row of which each made one statement at most, and
// soon: how a handler is found to be fit for a pipeline.
type streak struct {
	calls atomic.Int32
	lost  atomic.Int32
}

const (
	longStreak = 32
	// soon is what a call may take, its round trip included: far from Postgres
	// a pipeline spares most. Calls that take as long by themselves lose one
	// pipeline in penalty calls.
	soon = batchTime / 16
	// penalty is how many more calls it takes after a first pipeline in vain. It
	// doubles with each, up to 2^10 times, unless one goes well.
	penalty = 1000
)

func (s *streak) long() bool { return s.calls.Load() >= longStreak }

// lose ends the streak. Pipelines that were begun before count as one.
func (s *streak) lose() {
	if n := s.calls.Load(); n >= 0 && s.calls.CompareAndSwap(n, -penalty<<min(s.lost.Load(), 10)) {
		s.lost.Add(1)
	}
}

func (s *streak) win() {
	if n := s.lost.Load(); n > 0 {
		s.lost.CompareAndSwap(n, n-1)
	}
}

func (s *streak) saw(statements int32, took time.Duration) {
	n := s.calls.Load()
	switch {
	case statements > 1:
		s.calls.CompareAndSwap(n, min(n, 0))
	case took <= soon && n < longStreak: // a busy machine makes one slow now and then
		s.calls.CompareAndSwap(n, n+1)
	}
}

// runOne runs h for d, and watches how many statements it makes.
func (h *Handler) runOne(ctx context.Context, tx pgx.Tx, d *delivery) error {
	watched := &callTx{handlerTx: handlerTx{tx}, ctx: ctx}
	start := time.Now()
	err := h.run(ctx, watched, d)
	if err == nil {
		h.streak.saw(watched.statements.Load(), time.Since(start))
	}
	return err
}
