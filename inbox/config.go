package inbox

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WorkerConfig tunes a Worker. The zero value is ready for production.
type WorkerConfig struct {
	// Stream to consume. Empty means JOBS.
	Stream string
	// Consumer is the durable consumer's name, under which messages count as
	// processed. All workers of one name share its messages. Empty means worker.
	Consumer string
	// FilterSubjects are the subjects to consume. A message among them that no
	// handler wants becomes a dead letter. Empty means the handlers' own: what a
	// work queue holds besides waits for a consumer that takes it.
	FilterSubjects []string
	// BatchSize is how many messages one transaction takes at most. While none
	// runs, the next begins with whatever there is; while one does, a message waits
	// up to 5 ms to go with others, and as long as it takes if its key is in it.
	// Zero means 500.
	BatchSize int
	// Concurrency is how many batches run at once, on as many connections to
	// Postgres; see Connections for the pool. Zero means 8.
	Concurrency int
	// Calls is how many handlers made with Handle run at once. Zero means 32.
	Calls int
	// MaxAttempts is how many attempts a message gets, where its handler's Limits
	// do not say. Zero means 5.
	MaxAttempts int
	// RetryDelay is how long a failed message waits for its second attempt, up to 5
	// minutes; each later one waits twice as long, up to as much. Zero means 1 s.
	RetryDelay time.Duration
	// AckWait is how long the broker waits for a sign of life of a message's
	// worker before it delivers the message to another, 100 ms at least. Zero
	// means 30 s.
	AckWait time.Duration
	// HandlerTimeout is how long one call of a handler may take, where its Limits
	// do not say, a day at most. Zero means 30 s.
	HandlerTimeout time.Duration
	// Retention is how long a processed message is remembered. It must exceed
	// the outbox's, or a replay runs a message again. Zero means 14 days.
	Retention time.Duration
	// DrainTimeout is how long Run may go on after its context is done, to finish
	// what has begun. Zero means 25 s.
	DrainTimeout time.Duration
	// Logger receives what an operator should see. Nil discards it.
	Logger *slog.Logger
	// Metrics is where the worker registers its metrics. Nil keeps them unseen.
	Metrics prometheus.Registerer
}

const (
	day        = 24 * time.Hour
	minAckWait = 100 * time.Millisecond
)

// isSubject says whether a consumer can ask for s.
func isSubject(s string) bool {
	tokens := strings.Split(s, ".")
	return !slices.Contains(tokens, "") && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) &&
		!slices.Contains(tokens[:len(tokens)-1], ">")
}

// defaultConcurrency is what WorkerConfig says of Concurrency.
const defaultConcurrency = 8

// Connections is how many connections to Postgres the worker's pool should have:
// one a batch, one for upkeep and one to be asked whether it is ready.
func (c WorkerConfig) Connections() int {
	return cmp.Or(c.Concurrency, defaultConcurrency) + 2
}

func (c WorkerConfig) withDefaults(handlers []Handler) WorkerConfig {
	c.Stream = cmp.Or(c.Stream, "JOBS")
	c.Consumer = cmp.Or(c.Consumer, "worker")
	c.BatchSize = cmp.Or(c.BatchSize, 500)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.Calls = cmp.Or(c.Calls, 32)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 5)
	c.RetryDelay = cmp.Or(c.RetryDelay, time.Second)
	c.AckWait = cmp.Or(c.AckWait, 30*time.Second)
	c.HandlerTimeout = cmp.Or(c.HandlerTimeout, 30*time.Second)
	c.Retention = cmp.Or(c.Retention, 14*day)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 25*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.FilterSubjects) == 0 {
		for _, h := range handlers {
			c.FilterSubjects = append(c.FilterSubjects, h.subject)
		}
	}
	c.FilterSubjects = widest(c.FilterSubjects)
	return c
}

// validate reports every mistake at once, so that one restart fixes them all.
func (c WorkerConfig) validate(handlers []Handler) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	name := func(field, v string) {
		check(!strings.ContainsAny(v, " \t\r\n.*>/\\") && !strings.HasPrefix(v, "$"),
			"%s %q: no spaces, dots, wildcards, slashes or leading $", field, v)
	}
	name("Stream", c.Stream)
	name("Consumer", c.Consumer)
	check(c.BatchSize > 0 && c.BatchSize <= 10_000, "BatchSize %d is not between 1 and 10000", c.BatchSize)
	check(c.Concurrency > 0, "Concurrency %d is negative", c.Concurrency)
	check(c.Calls > 0, "Calls %d is negative", c.Calls)
	check(c.MaxAttempts > 0, "MaxAttempts %d is negative", c.MaxAttempts)
	check(c.RetryDelay > 0, "RetryDelay %v is negative", c.RetryDelay)
	check(c.AckWait >= minAckWait, "AckWait %v is less than %v", c.AckWait, minAckWait)
	check(c.HandlerTimeout > 0 && c.HandlerTimeout <= day, "HandlerTimeout %v is not between 0 and a day", c.HandlerTimeout)
	check(c.DrainTimeout > 0, "DrainTimeout %v is negative", c.DrainTimeout)
	check(c.Retention >= day, "Retention %v is less than a day", c.Retention)
	check(len(handlers) > 0, "no handlers")
	const want = "want tokens without spaces between dots, such as jobs.email, jobs.* or jobs.>"
	seen := map[string]bool{}
	for _, h := range handlers {
		check(isSubject(h.subject), "handler for %q: %s", h.subject, want)
		check(!seen[h.subject], "two handlers for subject %s", h.subject)
		seen[h.subject] = true
		errs = append(errs, h.validate())
	}
	for _, s := range c.FilterSubjects {
		check(seen[s] || isSubject(s), "subject %q: %s", s, want)
	}
	return errors.Join(errs...)
}
