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
	// soon is what a call may take with its round trip. Few that take longer
	// by themselves would fill batchTime in a pipeline.
	soon = batchTime / 16
	// penalty is how many more calls it takes after a first pipeline in vain. It
	// doubles with each, up to 2^10 times.
	penalty = 1000
)

func (s *streak) long() bool { return s.calls.Load() >= longStreak }

func (s *streak) lose() {
	s.calls.Store(-penalty << min(s.lost.Add(1)-1, 10))
}

func (s *streak) saw(statements int32, took time.Duration) {
	switch {
	case statements > 1:
		s.calls.Store(min(s.calls.Load(), 0))
	case took <= soon && !s.long(): // a busy machine makes one slow now and then
		s.calls.Add(1)
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
