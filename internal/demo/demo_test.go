package demo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	// Imported so that a change in them invalidates these tests' cached results:
	// the go command does not see what the built binary is made of.
	_ "github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/demo"
	_ "github.com/jetboxhq/jetbox/outbox"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if path, err := binary(); err == nil {
			_ = os.Remove(path) // the temporary directory is swept anyway
		}
		os.Exit(code)
	}))
}

func TestDemo_PassesWhilePartsAreKilled(t *testing.T) {
	t.Parallel()
	r := run(t, demo.Config{})
	if !r.Pass() {
		t.Errorf("got %+v, want every committed order with one effect", r)
	}
	for what, n := range map[string]int64{
		"rolled back orders":           r.RolledBack,
		"messages lost with the relay": r.Unrecorded,
		"effects killed before ack":    r.Unacked,
		"messages killed uncommitted":  r.Uncommitted,
		"restarts of the broker":       r.Restarts,
	} {
		if n < 1 {
			t.Errorf("got %d %s, want some: the fault did not happen", n, what)
		}
	}
}

// A proof that cannot fail proves nothing.
func TestDemo_FailsWhenMessagesAreAckedBeforeCommit(t *testing.T) {
	t.Parallel()
	for range 3 { // a kill has to come between an ack and its commit
		r := run(t, demo.Config{Break: demo.AckBeforeCommit})
		if !r.Pass() && r.Lost+r.Doubled > 0 {
			return
		}
		t.Logf("got %+v, want some lost or doubled", r)
	}
	t.Error("no kill came between an ack and its commit")
}

func TestDemo_LeavesNothingBehindWhenBrokenOff(t *testing.T) {
	exe, temp := build(t), temporary(t)
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	_, err := demo.Run(ctx, demo.Config{Executable: exe, Progress: func(demo.Progress) { cancel(enough) }})
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("%s is left behind", f.Name())
	}
}

// temporary is a directory that Postgres' user may pass through, as /tmp is.
func temporary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jetbox-demo-test-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// run shows a short demo and returns what it counted.
func run(t *testing.T, cfg demo.Config) demo.Result {
	t.Helper()
	cfg.Executable, cfg.Orders, cfg.Say = build(t), 300, t.Logf
	r, err := demo.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// binary builds, once for all tests, the jetbox that runs as relay and worker.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("jetbox-demo-test-%d.exe", os.Getpid()))
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/jetbox").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func build(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
