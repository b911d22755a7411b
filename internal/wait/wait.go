// Package wait is how everything here waits: for a time, never longer than its
// context, and at shutdown for work already begun.
package wait

import (
	"context"
	"errors"
	"time"
)

// Sleep waits for d and reports whether ctx was still alive at the end.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Signal leaves a value in ch, which has room for one: whoever looks there has all
// of the signals since the last look.
func Signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Drain returns a context for work already begun: it outlives ctx by at most
// grace, so that a batch is finished rather than torn.
func Drain(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if Sleep(work, grace) {
			cancel(errors.New("drain timeout"))
		}
	})
	return work, func() { stop(); cancel(nil) }
}
