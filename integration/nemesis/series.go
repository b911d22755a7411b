package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// series is many runs, each with the next seed.
type series struct {
	first, runs uint64
	parallel    int
	duration    time.Duration
	out         io.Writer
}

var (
	errViolated = errors.New("invariants were violated")
	errUnseen   = errors.New("a planted bug was not caught")
)

// faults makes all runs, whatever becomes of each.
func (s series) faults(ctx context.Context, o options) error {
	t := totals{out: s.out}
	var g errgroup.Group
	g.SetLimit(s.parallel)
	for seed := s.first; seed < s.first+s.runs && ctx.Err() == nil; seed++ {
		g.Go(func() error {
			r, err := s.one(ctx, &t, seed, o)
			if ctx.Err() == nil {
				t.add(seed, r, err)
			}
			return nil
		})
	}
	_ = g.Wait() // t has what became of them
	t.say("%s", t.String())
	if t.failures > 0 {
		return errViolated
	}
	return ctx.Err()
}

func (s series) one(ctx context.Context, t *totals, seed uint64, o options) (result, error) {
	say := func(format string, args ...any) { t.say("seed %d: "+format, append([]any{seed}, args...)...) }
	o.say = func(string, ...any) {}
	if o.verbose {
		o.say = say
	}
	say("begins %s", o.sabotage)
	return run(ctx, newPlan(seed, s.duration), o)
}

// controls plants bugs, each in a series of its own that ends when the bug is
// caught. names are separated by commas, and "all" is all.
func (s series) controls(ctx context.Context, o options, names string) error {
	planted := strings.Split(names, ",")
	if names == "all" {
		planted = slices.Sorted(maps.Keys(controls))
	}
	t := totals{out: s.out}
	var g errgroup.Group
	g.SetLimit(s.parallel)
	for _, name := range planted {
		if _, ok := controls[name]; !ok {
			return fmt.Errorf("no control is called %q", name)
		}
		g.Go(func() error {
			o := o
			o.sabotage = name
			return s.hunt(ctx, &t, o)
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// hunt runs until the bug is caught, and says after how many runs and by what.
func (s series) hunt(ctx context.Context, t *totals, o options) error {
	for n := range s.runs {
		r, err := s.one(ctx, t, s.first+n, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.say("%s: run %d: %v", o.sabotage, n+1, err)
		}
		found := maps.Clone(r.violations)
		maps.DeleteFunc(found, func(_ string, n int64) bool { return n == 0 })
		if len(found) > 0 {
			t.say("| %s | %s | %d | %s |", o.sabotage, controls[o.sabotage].bug, n+1, list(found))
			if o.verbose {
				return nil // somebody wants to look
			}
			return os.RemoveAll(r.dir)
		}
	}
	return fmt.Errorf("%w in %d runs: %s", errUnseen, s.runs, o.sabotage)
}
