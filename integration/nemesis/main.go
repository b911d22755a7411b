// Nemesis breaks jetbox on purpose and counts what was lost, doubled or put out
// of order: nothing, or it exits with 1.
//
// Each run has a Postgres and one or three nats-servers of its own, and two
// relays, two workers and the API as processes, every link through a proxy. One
// worker is jetbox's, with a SQL function; the other is a program of its own, with
// a handler in Go.
// While applications commit messages, faults strike by a plan that the seed
// decides, up to three at a time. Then everything heals, drains and is checked.
//
// The same seed makes the same plan, not the same run: the machine's scheduler
// is not in it. Disks keep what was written; no power is cut.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := nemesis(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nemesis:", err)
		os.Exit(1)
	}
}

func nemesis(ctx context.Context) (err error) {
	seed := flag.Uint64("seed", 1, "of the first run")
	seeds := flag.Uint64("seeds", 1, "how many runs, each with the next seed")
	duration := flag.Duration("duration", 30*time.Second, "of the faults of a run")
	parallel := flag.Int("parallel", 1, "how many runs at once")
	recovery := flag.Duration("recovery", time.Minute, "how long a run may take to drain after its faults")
	planted := flag.String("controls", "", "plant these bugs, or all, each in runs of its own, and show after how many it is caught")
	verbose := flag.Bool("v", false, "show every fault")
	flag.Parse()

	dir, err := os.MkdirTemp("", "jetbox-nemesis-bin-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin, err := build(ctx, dir)
	if err != nil {
		return err
	}
	if faketime() == "" {
		fmt.Println("libfaketime is not installed: no clock is shifted")
	}
	o := options{bin: bin, recovery: *recovery, verbose: *verbose}
	series := series{first: *seed, runs: *seeds, parallel: *parallel, duration: *duration, out: os.Stdout}
	if *planted != "" {
		return series.controls(ctx, o, *planted)
	}
	return series.faults(ctx, o)
}

// binaries are the programs under test.
type binaries struct{ jetbox, goworker, nats string }

// build makes them from this module, nats-server in the version that go.mod names.
func build(ctx context.Context, dir string) (binaries, error) {
	b := binaries{filepath.Join(dir, "jetbox"), filepath.Join(dir, "goworker"), filepath.Join(dir, "nats-server")}
	for path, pkg := range map[string]string{
		b.jetbox:   "github.com/jetboxhq/jetbox/cmd/jetbox",
		b.goworker: "github.com/jetboxhq/jetbox/integration/nemesis/goworker",
		b.nats:     "github.com/nats-io/nats-server/v2",
	} {
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
			return b, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return b, nil
}
