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

// caller calls a handler with a context of its own, for at most limit, and
// makes an error of its panic.
type caller func(limit time.Duration, handler func(context.Context) error) error

// protect runs fn, which calls handlers through its caller. fn has a goroutine
// of its own, so that a panic and a Goexit end as errors, and so that it can be
// left behind when a handler is deaf to its context. That goroutine then lives
// until the handler returns, so fn may write nothing that its caller reads: what
// it has to say it returns.
func protect[T any](ctx context.Context, fn func(caller) (T, error)) (T, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave() // what is left behind calls no other handler
	patience := time.NewTimer(time.Hour)
	defer patience.Stop()
	defer context.AfterFunc(ctx, func() { patience.Reset(deafness) })()
	ended := make(chan outcome[T], 1)
	go func() {
		o := outcome[T]{err: errGoexit}
		defer func() {
			if v := recover(); v != nil {
				o.err = panicError(v)
			}
			ended <- o
		}()
		o.value, o.err = fn(func(limit time.Duration, handler func(context.Context) error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			patience.Reset(limit + min(limit, deafness))
			ctx, cancel := context.WithTimeoutCause(ctx, limit, errHandlerTimeout)
			defer cancel()
			return timedOut(ctx, limit, survive(ctx, handler))
		})
	}()
	var deaf T
	select {
	case o := <-ended:
		return o.value, o.err
	case <-patience.C:
		return deaf, fmt.Errorf("%w: %w", errHandlerTimeout, errDeaf)
	}
}

// survive makes an error of a handler's panic.
func survive(ctx context.Context, handler func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	if err = handler(ctx); err != nil {
		_ = err.Error() // if that panics, it does so here
	}
	return err
}

type outcome[T any] struct {
	value T
	err   error
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
