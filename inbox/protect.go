package inbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

var (
	// errHandlerTimeout tells a slow handler from a stopping worker.
	errHandlerTimeout = errors.New("handler timeout")
	// errDeaf reports a handler that still runs although its context is done.
	errDeaf   = errors.New("handler ignored its context and was abandoned")
	errGoexit = errors.New("handler called runtime.Goexit")
)

// deafness is how long a handler may run on after its context is done.
const deafness = 2 * time.Second

// protect runs fn for at most limit. It runs on a goroutine of its own, so that
// a panic and a Goexit end as errors and a fn deaf to its context can be left
// behind; that one goroutine then lives until fn returns.
func protect(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHandlerTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			if v := recover(); v != nil {
				err = panicError(v)
			}
			done <- err
		}()
		err = fn(ctx)
	}()
	select {
	case err := <-done:
		return timedOut(ctx, limit, err)
	case <-ctx.Done():
	}
	patience := time.NewTimer(min(limit, deafness))
	defer patience.Stop()
	select {
	case err := <-done:
		return timedOut(ctx, limit, err)
	case <-patience.C:
		return timedOut(ctx, limit, errDeaf)
	}
}

// timedOut names the timer behind err, if it was the handler's.
func timedOut(ctx context.Context, limit time.Duration, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errHandlerTimeout) {
		return fmt.Errorf("%w after %v: %w", errHandlerTimeout, limit, err)
	}
	return err
}

// maxStack bounds the stack kept with a panic: its top says where.
const maxStack = 4096

func panicError(v any) error {
	stack := debug.Stack()
	return fmt.Errorf("handler panicked: %v\n%s", v, stack[:min(len(stack), maxStack)])
}
