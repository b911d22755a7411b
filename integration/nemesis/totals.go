package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// totals are the sums over all runs.
type totals struct {
	mu                 sync.Mutex
	out                io.Writer
	runs, failures     int
	committed, effects int64
	exits              []string
	violations, faults map[string]int64
	recovery           time.Duration
}

func (t *totals) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A terminal that is gone is no reason to end a run.
	_, _ = fmt.Fprintf(t.out, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// add takes the outcome of a run, and tells it.
func (t *totals) add(seed uint64, r result, err error) {
	t.say("seed %d: %v", seed, r.line())
	for _, last := range r.exits {
		t.say("seed %d: ended by itself: %s", seed, last)
	}
	if err != nil {
		t.say("seed %d: %v", seed, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs++
	if err != nil || r.failed() {
		t.failures++
	}
	t.committed += r.committed
	t.effects += r.effects
	t.exits = append(t.exits, r.exits...)
	t.recovery = max(t.recovery, r.recovery)
	t.violations = sum(t.violations, r.violations)
	t.faults = sum(t.faults, r.faults)
}

func sum(a, b map[string]int64) map[string]int64 {
	if a == nil {
		a = map[string]int64{}
	}
	for k, n := range b {
		a[k] += n
	}
	return a
}

func (t *totals) String() string {
	return fmt.Sprintf("%d runs, %d failed: ", t.runs, t.failures) +
		result{t.committed, t.effects, t.faults, t.recovery, t.exits, t.violations, ""}.line() +
		"\nfaults by kind: " + list(t.faults)
}

// line is one line for a person.
func (r result) line() string {
	var injected int64
	for _, n := range r.faults {
		injected += n
	}
	text := fmt.Sprintf("committed %d, effects %d, lost %d, doubled %d, inverted %d; %d faults, worst recovery %.1fs, %d restarts by the supervisor",
		r.committed, r.effects, r.violations[lost], r.violations[doubled], r.violations[inverted], injected, r.recovery.Seconds(), len(r.exits))
	others := maps.Clone(r.violations)
	for _, said := range []string{lost, doubled, inverted} {
		delete(others, said)
	}
	maps.DeleteFunc(others, func(_ string, n int64) bool { return n == 0 })
	if len(others) > 0 {
		text += "; VIOLATED: " + list(others)
	}
	if r.dir != "" {
		text += "; kept in " + r.dir
	}
	return text
}

func list(m map[string]int64) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
