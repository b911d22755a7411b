package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jetboxhq/jetbox/internal/bench"
)

type benchCommand struct {
	Relay  benchRelay  `cmd:"" help:"Outbox to stream, beside a bare publisher and a bare COPY." example:"jetbox bench relay"`
	Worker benchWorker `cmd:"" help:"Stream to committed effects, by kind of handler, beside a transaction a message." example:"jetbox bench worker"`
	E2E    benchE2E    `cmd:"" name:"e2e" help:"INSERT to committed effect: throughput, then latency at a fixed rate." example:"jetbox bench e2e"`
	Insert benchInsert `cmd:"" help:"What the outbox costs who inserts, beside a plain table with a pending index." example:"jetbox bench insert"`
	Grow   benchGrow   `cmd:"" help:"The relay with millions of rows of history, and under a held snapshot." example:"jetbox bench grow"`
	NATS   benchNATS   `cmd:"" name:"nats" hidden:"" help:"The server that a benchmark starts where none is named."`
}

// benchFlags are what all benchmarks have in common.
type benchFlags struct {
	databaseFlags
	natsFlags
	SyncAlways bool   `help:"Let the private NATS sync before each acknowledgement."`
	Rounds     int    `default:"5" help:"How often each measurement is repeated."`
	JSON       bool   `name:"json" help:"One JSON object a line, and nothing else on stdout."`
	Plot       string `placeholder:"FILE.svg" help:"Draw how rates and latencies went over time."`
}

// loadFlags say how much is sent.
type loadFlags struct {
	Messages int `default:"200000" help:"How many messages a round takes."`
	Size     int `default:"128" help:"Bytes of a payload."`
}

type benchRelay struct {
	benchFlags
	loadFlags
}

func (c benchRelay) Run(ctx context.Context, w world) error {
	return c.run(ctx, w, bench.Relay, c.loadFlags, bench.Config{})
}

type benchWorker struct {
	benchFlags
	loadFlags
}

func (c benchWorker) Run(ctx context.Context, w world) error {
	return c.run(ctx, w, bench.Worker, c.loadFlags, bench.Config{})
}

type benchE2E struct {
	benchFlags
	loadFlags
	Duration time.Duration `default:"10s" help:"How long one round at the fixed rate takes."`
	Rate     int           `default:"1000" help:"How many messages a second are due."`
}

func (c benchE2E) Run(ctx context.Context, w world) error {
	return c.run(ctx, w, bench.E2E, c.loadFlags, bench.Config{Duration: c.Duration, Rate: c.Rate})
}

type benchInsert struct {
	benchFlags
	Size     int           `default:"128" help:"Bytes of a payload."`
	Duration time.Duration `default:"10s" help:"How long one round at each number of connections takes."`
}

func (c benchInsert) Run(ctx context.Context, w world) error {
	return c.run(ctx, w, bench.Insert, loadFlags{Size: c.Size}, bench.Config{Duration: c.Duration})
}

type benchGrow struct {
	benchFlags
	loadFlags
	History []int `default:"0,1000000,10000000" help:"How many published rows the outbox holds meanwhile; ten million need 8 GB of disk."`
}

func (c benchGrow) Run(ctx context.Context, w world) error {
	return c.run(ctx, w, bench.Grow, c.loadFlags, bench.Config{History: c.History})
}

type benchNATS struct {
	Dir        string `arg:"" help:"Where it stores."`
	SyncAlways bool   `help:"Sync before each acknowledgement."`
}

func (c benchNATS) Run(w world) error {
	return bench.ServeNATS(c.Dir, c.SyncAlways, os.Stdin, w.stdout)
}

// benchmark is one of the package's.
type benchmark func(context.Context, bench.Config) (bench.Report, error)

func (f benchFlags) run(ctx context.Context, w world, measure benchmark, load loadFlags, cfg bench.Config) error {
	cfg.Rounds, cfg.SyncAlways, cfg.Messages, cfg.Size = f.Rounds, f.SyncAlways, load.Messages, load.Size
	if err := f.place(w, &cfg); err != nil {
		return err
	}
	if w.terminal {
		start := time.Now()
		cfg.Say = func(format string, args ...any) {
			_, _ = fmt.Fprintf(w.stderr, "%6.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
		}
	}
	report, err := measure(ctx, cfg)
	if err != nil {
		return err
	}
	if f.Plot != "" {
		if err := os.WriteFile(f.Plot, bench.Plot(report), 0o644); err != nil {
			return fmt.Errorf("bench: plot: %w", err)
		}
	}
	if f.JSON {
		return writeLines(w.stdout, report.Results)
	}
	return writeSummary(w.stdout, report)
}

// place says where to measure: on the servers that are named, and on private
// ones for those that are not.
func (f benchFlags) place(w world, cfg *bench.Config) error {
	env := newEnvironment(w.environ)
	var errs [4]error
	cfg.Executable, errs[0] = os.Executable()
	cfg.Environ = withoutSettings(w.environ)
	if f.databaseFlags.named(env) {
		cfg.Database, errs[1] = f.databaseFlags.config(env, "bench")
	}
	if f.natsFlags.named(env) {
		nats, err := f.natsFlags.config(env)
		cfg.NATS, errs[2] = &nats, err
	}
	errs[3] = cfg.Validate()
	return found(errs[:]...)
}

// withoutSettings leaves out what would configure the relay: the benchmark does.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(settable, name) || slices.Contains(secrets, strings.TrimSuffix(name, "_FILE"))
	})
}

func writeLines(out io.Writer, results []fmt.Stringer) error {
	lines := json.NewEncoder(out)
	for _, r := range results {
		if err := lines.Encode(r); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	return nil
}

// writeSummary writes what a person can paste into an issue.
func writeSummary(out io.Writer, r bench.Report) error {
	var text strings.Builder
	fmt.Fprintf(&text, "```\njetbox %s\n", version())
	for _, line := range r.Machine {
		fmt.Fprintln(&text, line)
	}
	for _, result := range r.Results {
		fmt.Fprintf(&text, "\n%v\n", result)
	}
	text.WriteString("```\n")
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}
