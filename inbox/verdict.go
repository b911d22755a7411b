package inbox

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"time"
)

var errNoReason = errors.New("the handler gave no reason")

// Permanent marks err as not worth another attempt: the message becomes a dead
// letter at once. A nil err is a failure too, without a reason.
func Permanent(err error) error { return &permanentError{cmp.Or(err, errNoReason)} }

// RetryAfter asks for the next attempt after d instead of the worker's own
// delay. It counts as an attempt. A nil err is a failure too, without a reason.
func RetryAfter(d time.Duration, err error) error { return &retryError{cmp.Or(err, errNoReason), d} }

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

type retryError struct {
	err   error
	after time.Duration
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// maxDelay bounds the wait between two attempts.
const maxDelay = 5 * time.Minute

// retryDelay is how long to wait after attempt failed with err: what the
// handler asked for, else first doubled for each attempt before, of which a
// random half is kept so that messages that failed together do not return
// together.
func retryDelay(err error, attempt int, first time.Duration) time.Duration {
	if e, ok := errors.AsType[*retryError](err); ok {
		return max(e.after, 0)
	}
	d := min(first, maxDelay)
	for range attempt - 1 {
		d = min(2*d, maxDelay)
		if d == maxDelay {
			break
		}
	}
	return d/2 + rand.N(d/2+1)
}
