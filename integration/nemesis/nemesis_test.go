package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(leave)) }

func leave(code int) {
	if err := os.RemoveAll(builtIn); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

var builtIn = filepath.Join(os.TempDir(), fmt.Sprint("jetbox-nemesis-test-", os.Getpid()))

// programs builds what is under test once for all tests.
var programs = sync.OnceValues(func() (binaries, error) {
	if err := os.Mkdir(builtIn, 0o700); err != nil {
		return binaries{}, err
	}
	return build(context.Background(), builtIn)
})

// patience is what a loaded machine may take to drain: the tests are about what
// is lost, not about how fast.
const patience = 3 * time.Minute

func suffers(t *testing.T, p plan, o options) result {
	t.Helper()
	var err error
	if o.bin, err = programs(); err != nil {
		t.Fatal(err)
	}
	o.recovery, o.say = patience, t.Logf
	r, err := run(t.Context(), p, o)
	if err != nil {
		t.Fatalf("%v\nkept in %s", err, r.dir)
	}
	t.Log(r.line())
	return r
}

func TestJetbox_RecoversFromEachFaultAlone(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]plan{
		"one server, a work queue": eachFault(1, true),
		"three servers":            eachFault(3, false),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := suffers(t, p, options{each: true}); r.failed() {
				t.Errorf("violated: %s", list(r.violations))
			}
		})
	}
}

func TestJetbox_LosesAndDoublesNothingUnderFaultsThatOverlap(t *testing.T) {
	t.Parallel()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	// A run mostly waits, so several go at once, whatever go test thinks of that.
	s := series{first: 1, runs: 5, parallel: 3, duration: 20 * time.Second, out: t.Output()}
	if err := s.faults(t.Context(), options{bin: bin, recovery: patience}); err != nil {
		t.Error(err)
	}
}

// A checker that has not been seen to fail proves nothing.
func TestNemesis_SeesWhatItLooksFor(t *testing.T) {
	t.Parallel()
	// A new consumer of a stream that keeps everything has it all delivered again.
	p := plan{Servers: 1, Faults: []fault{{Kind: "consumer-delete", Target: "stream"}}}
	for bug, want := range map[string]string{
		"remembers-nothing":                doubled,
		"any-order-per-key":                inverted,
		"logs-a-payload":                   "payload in",
		"enqueues-outside-the-transaction": "effects of what was rolled back",
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			r := suffers(t, p, options{sabotage: bug})
			if !violates(r, want) {
				t.Errorf("%q was not seen, but %s", want, list(r.violations))
			}
			if err := os.RemoveAll(r.dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func violates(r result, name string) bool {
	for k, n := range r.violations {
		if n > 0 && strings.HasPrefix(k, name) {
			return true
		}
	}
	return false
}

func TestPlan_IsAFunctionOfItsSeed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seed := range uint64(300) {
		p := newPlan(seed, time.Minute)
		if again := newPlan(seed, time.Minute); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d: two plans", seed)
		}
		for i, f := range p.Faults {
			seen[f.Kind] = true
			if before := (plan{Faults: p.Faults[:i]}); !before.fits(f) {
				t.Errorf("seed %d: %v overlaps with what came before", seed, f)
			}
		}
	}
	for kind := range faults {
		if !seen[kind] {
			t.Errorf("300 seeds never inject %s", kind)
		}
	}
}

func TestRun_KeepsWhatAFailureNeeds(t *testing.T) {
	t.Parallel()
	p := plan{Servers: 1}
	r := suffers(t, p, options{sabotage: "logs-a-payload"})
	for _, name := range []string{"plan.txt", "relay-1.log", "postgres.log", "nats-1.log", "postgres/PG_VERSION"} {
		if _, err := os.Stat(filepath.Join(r.dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(r.dir); err != nil {
		t.Error(err)
	}
}
