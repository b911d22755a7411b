package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// libfaketime is where systems put the library that gives a program written in
// C another clock. Go asks the kernel without the C library, so that jetbox and
// NATS keep theirs; what they wait for is monotonic in any case.
var libfaketime = []string{
	"/usr/lib/*/faketime/libfaketime.so.1",
	"/usr/lib*/faketime/libfaketime.so.1",
	"/usr/local/lib/faketime/libfaketime.so.1",
}

// faketime is the installed library; empty if there is none.
func faketime() string {
	for _, pattern := range libfaketime {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // its only error is a bad pattern
			return found[0]
		}
	}
	return ""
}

func (p *postgres) clockFile() string { return filepath.Join(p.dir, "clock") }

// clockEnv has the server look into its clock's file at every reading of the
// time of day. What measures time that passes, and the times of files, stay.
func (p *postgres) clockEnv() []string {
	return []string{
		"LD_PRELOAD=" + faketime(), "FAKETIME_TIMESTAMP_FILE=" + p.clockFile(),
		"FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
	}
}

// shift has the server's clock go wrong by so much; zero puts it right.
func (p *postgres) shift(by time.Duration) error {
	aside := p.clockFile() + ".new"
	if err := os.WriteFile(aside, fmt.Appendf(nil, "%+d\n", int(by.Seconds())), 0o644); err != nil {
		return err
	}
	return os.Rename(aside, p.clockFile())
}

// shiftClock has the clock of Postgres go wrong in turns.
func shiftClock(by ...time.Duration) func(context.Context, *lab, fault) error {
	return func(ctx context.Context, l *lab, f fault) (err error) {
		defer func() { err = errors.Join(err, l.postgres.shift(0)) }()
		end := time.Now().Add(f.For)
		for i := 0; time.Now().Before(end); i++ {
			if err := l.postgres.shift(by[i%len(by)]); err != nil {
				return err
			}
			if !wait.Sleep(ctx, min(500*time.Millisecond, time.Until(end))) {
				return nil
			}
		}
		return nil
	}
}
