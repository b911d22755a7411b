package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// options are what a run has besides its plan.
type options struct {
	bin      binaries
	recovery time.Duration // how long after the last fault all may take
	sabotage string        // a positive control; empty for none
	each     bool          // one fault at a time, with a recovery after each
	verbose  bool
	say      func(format string, args ...any) // what happens, if verbose
}

// result is what a run has counted.
type result struct {
	committed, effects int64
	faults             map[string]int64 // injected, by kind
	recovery           time.Duration    // the worst
	exits              []string         // of daemons, by themselves: what they said last
	violations         map[string]int64 // by invariant; 0 is none
	dir                string           // kept of a run that failed
}

func (r result) failed() bool {
	for _, n := range r.violations {
		if n > 0 {
			return true
		}
	}
	return false
}

// run is one run: warm-up, faults, heal, drain, check. An error is a run that
// could not be held; violations are in the result.
func run(ctx context.Context, p plan, o options) (result, error) {
	if faketime() == "" {
		p = p.withoutClock()
	}
	dir, err := os.MkdirTemp("", "jetbox-nemesis-")
	if err != nil {
		return result{}, err
	}
	r := result{dir: dir, faults: map[string]int64{}, violations: map[string]int64{}}
	if err := os.WriteFile(dir+"/plan.txt", []byte(p.text()), 0o600); err != nil {
		return r, err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	l, err := open(serving, p, dir, o.bin, g)
	if err == nil {
		err = l.play(ctx, o, &r)
	}
	stop()
	err = errors.Join(err, g.Wait(), l.close())
	if err == nil && !r.failed() {
		r.dir = ""
		return r, os.RemoveAll(dir)
	}
	return r, err
}

// play runs the daemons and everything that happens to them.
func (l *lab) play(ctx context.Context, o options, r *result) error {
	if err := l.sabotage(ctx, o.sabotage); err != nil {
		return err
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	for _, d := range l.daemons {
		g.Go(func() error { return d.supervise(alive) })
	}
	said := &said{newest: map[string]int64{}}
	err := l.phases(ctx, o, r, said)
	if err == nil {
		err = l.check(ctx, said, r.violations)
	}
	stop()
	err = errors.Join(err, g.Wait())
	for _, d := range l.daemons {
		r.exits = append(r.exits, d.exits...)
	}
	if err != nil {
		return err
	}
	left, err := l.leaks(ctx)
	maps.Copy(r.violations, left)
	return err
}

// phases leave the lab drained, or say that it does not drain.
func (l *lab) phases(ctx context.Context, o options, r *result, said *said) error {
	producing, enough := context.WithCancel(ctx)
	defer enough()
	var g errgroup.Group
	for i := range producers {
		p := &producer{lab: l, r: rand.New(rand.NewPCG(l.plan.Seed, uint64(2+i))), said: said}
		if i == 0 {
			g.Go(func() error { return p.order(producing, ctx) })
			continue
		}
		g.Go(func() error { return p.produce(producing) })
	}
	err := l.warmUp(ctx)
	if err == nil {
		err = l.suffer(ctx, o, r)
	}
	err = errors.Join(err, l.heal(ctx))
	enough()
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	return errors.Join(l.recover(ctx, o, r), l.tally(ctx, r))
}

// producers is how many applications there are; the first one uses the API.
const producers = 4

func (l *lab) warmUp(ctx context.Context) error {
	err := until(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		n, err := l.count(ctx, `SELECT count(*) FROM nemesis.effect`)
		return n > 100, err
	})
	if err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	return l.watchAcks(ctx)
}

// suffer injects the faults of the plan and returns when all have ended.
func (l *lab) suffer(ctx context.Context, o options, r *result) error {
	if o.each {
		return l.sufferEach(ctx, o, r)
	}
	g, going := errgroup.WithContext(ctx)
	start := time.Now()
	for _, f := range l.plan.Faults {
		if !wait.Sleep(going, time.Until(start.Add(f.At))) {
			break
		}
		o.say("%v", f)
		r.faults[f.Kind]++
		g.Go(func() error { return l.inject(going, f) })
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// sufferEach waits for the recovery from each fault, while more is enqueued.
func (l *lab) sufferEach(ctx context.Context, o options, r *result) error {
	for _, f := range l.plan.Faults {
		r.faults[f.Kind]++
		if err := l.inject(ctx, f); err != nil {
			return err
		}
		start := time.Now()
		if err := l.flow(ctx, o.recovery); err != nil {
			return fmt.Errorf("after %s: %w", f.Kind, err)
		}
		took := time.Since(start)
		o.say("%-16s %s recovered in %.2fs", f.Kind, f.Target, took.Seconds())
		r.recovery = max(r.recovery, took)
	}
	return nil
}

// flow waits until what is committed by now has been settled, while more comes.
func (l *lab) flow(ctx context.Context, patience time.Duration) error {
	var now string
	return until(ctx, patience, func(ctx context.Context) (bool, error) {
		if now == "" {
			if err := l.db.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&now); err != nil {
				return false, err
			}
		}
		n, err := l.count(ctx, unsettledBySQL, now)
		return err == nil && n == 0, errors.Join(err, fmt.Errorf("%d messages are on their way", n))
	})
}

// unsettledBySQL leaves out what fails for good: that takes its attempts' time.
// What was committed by now is told by a snapshot, since clocks are shifted.
const unsettledBySQL = unsettledSQL + ` AND t.kind <> 'poison' AND pg_visible_in_snapshot(t.xmin::text::xid8, $1::text::pg_snapshot)`

// recover waits until nothing is on its way. What takes too long is a violation
// by itself, and is then counted as lost or not.
func (l *lab) recover(ctx context.Context, o options, r *result) error {
	start := time.Now()
	err := until(ctx, o.recovery, l.drained)
	r.recovery = max(r.recovery, time.Since(start))
	if errors.Is(err, errTimeout) {
		o.say("not drained: %s", strings.ReplaceAll(err.Error(), "\n", ": "))
		r.violations["runs that did not recover in time"] = 1
		return nil
	}
	return err
}

func (l *lab) tally(ctx context.Context, r *result) (err error) {
	if r.committed, err = l.count(ctx, `SELECT count(*) FROM nemesis.truth`); err != nil {
		return err
	}
	r.effects, err = l.count(ctx, `SELECT count(*) FROM nemesis.effect`)
	return err
}

func (p plan) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d nats-server, sync_interval always %t, work queue %t, clock %t\n", p.Seed, p.Servers, p.SyncEach, p.WorkQueue, p.Clock)
	for _, f := range p.Faults {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}
