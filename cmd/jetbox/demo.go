package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
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
	var wrong []error
	if c.Orders < 1 {
		wrong = append(wrong, fmt.Errorf("--orders %d is not above zero", c.Orders))
	}
	if c.Break != "" && c.Break != demo.AckBeforeCommit {
		wrong = append(wrong, fmt.Errorf("--break %s: no rule is called so; there is %s", c.Break, demo.AckBeforeCommit))
	}
	if err := found(wrong...); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: find our own binary: %w", err)
	}
	ticker := &ticker{out: w.stderr, start: time.Now()}
	cfg := demo.Config{Executable: exe, Orders: c.Orders, Break: c.Break, Say: ticker.say}
	if w.terminal {
		cfg.Progress = ticker.progress
	}
	r, err := demo.Run(ctx, cfg)
	ticker.end()
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

// ticker writes lines and, on a terminal, one more below them that counts.
type ticker struct {
	out   io.Writer
	start time.Time

	mu   sync.Mutex
	last string // the counting line, as it stands
}

// clearLine returns the cursor of a terminal and wipes its line.
const clearLine = "\r\x1b[K"

func (t *ticker) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wipe()
	_, _ = fmt.Fprintf(t.out, "%s  %s\n%s", t.elapsed(), fmt.Sprintf(format, args...), t.last) // nobody to tell
}

func (t *ticker) progress(p demo.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wipe()
	t.last = fmt.Sprintf("%s  %d committed, %d published, %d effects", t.elapsed(), p.Committed, p.Published, p.Effects)
	_, _ = fmt.Fprint(t.out, t.last)
}

// end wipes the counting line: the table counts better.
func (t *ticker) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wipe()
}

func (t *ticker) wipe() {
	if t.last != "" {
		_, _ = fmt.Fprint(t.out, clearLine)
	}
}

func (t *ticker) elapsed() string { return fmt.Sprintf("%5.1fs", time.Since(t.start).Seconds()) }
