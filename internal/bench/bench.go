// Package bench measures jetbox beside the limits of the machine it runs on.
//
// Each benchmark alternates what it measures with its yardstick, round by
// round, and reports medians and the ratio of the two: a machine's mood changes
// both alike. Relay and worker are the real ones, with their default settings;
// the relay is a process of its own, and so are the servers.
//
// It says nothing about other machines, networks between the servers, or
// handlers that do more than write a row.
//
// Everything happens in a database and in streams that it makes and removes;
// nothing else on the servers is touched.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// Config says what to measure and where. The zero value of all but Executable
// measures private servers, as their own defaults and the settings in lab.go
// make them.
type Config struct {
	// Executable is the jetbox binary whose relay runs.
	Executable string
	// Environ is what its processes inherit. It must not configure jetbox.
	Environ []string
	// Database is a server on which a database may be made. Nil means a private one.
	Database *pgxpool.Config
	// NATS is a server on which streams may be made. Nil means a private one.
	NATS *natsconn.Config
	// SyncAlways makes the private NATS sync before each acknowledgement. False
	// leaves it at the server's default, every two minutes.
	SyncAlways bool
	// Messages is how many one round takes. Zero means 200,000.
	Messages int
	// Size is the payload's size in bytes. Zero means 128.
	Size int
	// Rounds is how often each measurement is repeated. Zero means 5.
	Rounds int
	// Duration is how long one measurement by time takes. Zero means 10 s.
	Duration time.Duration
	// Rate is how many messages a second the open loop inserts. Zero means 1,000.
	Rate int
	// History is how many published rows the outbox holds while Grow measures.
	// Nil means 0, 1 and 10 million.
	History []int
	// Say receives what is happening, a line at a time. Nil discards it.
	Say func(format string, args ...any)
}

func (c Config) withDefaults() Config {
	c.Messages = cmp.Or(c.Messages, 200_000)
	c.Size = cmp.Or(c.Size, 128)
	c.Rounds = cmp.Or(c.Rounds, 5)
	c.Duration = cmp.Or(c.Duration, 10*time.Second)
	c.Rate = cmp.Or(c.Rate, 1000)
	if c.History == nil {
		c.History = []int{0, 1_000_000, 10_000_000}
	}
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	for _, f := range []struct {
		name       string
		value, min int
	}{{"messages", c.Messages, 10}, {"size", c.Size, 16}, {"rounds", c.Rounds, 1}, {"rate", c.Rate, 1}} {
		if f.value < f.min {
			errs = append(errs, fmt.Errorf("%s is %d, need at least %d", f.name, f.value, f.min))
		}
	}
	if c.Size > 900_000 {
		errs = append(errs, fmt.Errorf("size is %d, above the outbox's limit of 900000", c.Size))
	}
	if c.Duration < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("duration is %v, need at least 100ms", c.Duration))
	}
	for i, n := range c.History {
		if n < 0 || (i > 0 && n < c.History[i-1]) {
			errs = append(errs, errors.New("history must grow from one number to the next"))
			break
		}
	}
	return errors.Join(errs...)
}

// Validate reports every mistake at once.
func (c Config) Validate() error { return c.withDefaults().validate() }

// Report is what a benchmark found.
type Report struct {
	// Results marshal to one JSON object each, and their String is a line to read.
	Results []fmt.Stringer
	// Machine says where the figures are from, a line for each fact.
	Machine []string
	// Series is how rates and latencies went over time.
	Series []Series
}

// measure runs one benchmark in a lab that it opens and closes.
func measure(ctx context.Context, name string, cfg Config, run func(context.Context, *lab, *Report) error) (Report, error) {
	var r Report
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return r, fmt.Errorf("bench %s: %w", name, err)
	}
	l, err := openLab(ctx, cfg)
	if err == nil {
		r.Machine, err = l.machine(ctx)
	}
	if err == nil {
		err = run(ctx, l, &r)
	}
	if err = errors.Join(err, l.close()); err != nil {
		return Report{}, fmt.Errorf("bench %s: %w", name, err)
	}
	return r, nil
}
