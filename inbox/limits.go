package inbox

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits are what one handler has of its own.
type Limits struct {
	// MaxAttempts is how many attempts a message gets. Zero means the worker's.
	MaxAttempts int
	// Timeout is how long one call may take, with a set of messages where a handler
	// takes sets, a day at most. Calls that share a round trip share it too: what
	// is too late then runs again by itself. Zero means the worker's HandlerTimeout.
	Timeout time.Duration
}

// Limit returns h with limits of its own.
func (h Handler) Limit(l Limits) Handler {
	h.limits = l
	return h
}

func (h Handler) validate() error {
	var errs []error
	if h.limits.MaxAttempts < 0 {
		errs = append(errs, fmt.Errorf("handler for %s: MaxAttempts %d is negative", h.subject, h.limits.MaxAttempts))
	}
	if h.limits.Timeout < 0 || h.limits.Timeout > day {
		errs = append(errs, fmt.Errorf("handler for %s: Timeout %v is not between 0 and a day", h.subject, h.limits.Timeout))
	}
	return errors.Join(errs...)
}

// limited returns handlers with the limits that each has in the end.
func (c WorkerConfig) limited(handlers []Handler) []Handler {
	handlers = slices.Clone(handlers)
	for i := range handlers {
		l := &handlers[i].limits
		l.MaxAttempts = cmp.Or(l.MaxAttempts, c.MaxAttempts)
		l.Timeout = cmp.Or(l.Timeout, c.HandlerTimeout)
	}
	return handlers
}
