package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/jetboxhq/jetbox/internal/demo"
)

type demoCommand struct {
	Orders int    `default:"3000" help:"How many orders commit at least."`
	JSON   bool   `name:"json" help:"One JSON object with the numbers."`
	Break  string `hidden:"" help:"Break a rule, to see the demo fail: ack-before-commit."`
}

// errNotProved is the demo's exit code 1: the numbers say why.
var errNotProved = errors.New("demo: FAIL: not every committed order had exactly one effect")

func (c demoCommand) Run(ctx context.Context, w world) error {
	if c.Orders < 1 {
		return mistakes{fmt.Errorf("--orders %d is not above zero", c.Orders)}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: find our own binary: %w", err)
	}
	start := time.Now()
	r, err := demo.Run(ctx, demo.Config{
		Executable: exe, Orders: c.Orders, Break: c.Break,
		Say: func(format string, args ...any) {
			_, _ = fmt.Fprintf(w.stderr, "%5.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
		},
	})
	if err != nil {
		return err
	}
	if err := c.show(w, r); err != nil {
		return err
	}
	if !r.Pass() {
		return errNotProved
	}
	return nil
}

func (c demoCommand) show(w world, r demo.Result) error {
	if c.JSON {
		return json.NewEncoder(w.stdout).Encode(struct {
			demo.Result
			Pass bool `json:"pass"`
		}{r, r.Pass()})
	}
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		name  string
		count int64
		note  string
	}{
		{"committed", r.Committed, fmt.Sprintf("orders, each with its outbox row; %d more were rolled back", r.RolledBack)},
		{"published", r.Published, "messages that JetStream stored, repeats included"},
		{"effects", r.Effects, "rows that the handler wrote"},
		{"lost", r.Lost, "orders without an effect"},
		{"doubled", r.Doubled, "effects beyond an order's first"},
		{"phantom", r.Phantom, "effects of orders that were rolled back"},
	} {
		if _, err := fmt.Fprintf(t, "%s\t%d\t%s\n", line.name, line.count, line.note); err != nil {
			return err
		}
	}
	verdict := "FAIL"
	if r.Pass() {
		verdict = "PASS"
	}
	if _, err := fmt.Fprintf(t, "%s\t\tin %.1f s\n", verdict, float64(r.ElapsedMSec)/1000); err != nil {
		return err
	}
	return t.Flush()
}
