package main

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestUp_NeedsNothingButADirectory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Postgres of its own")
	}
	dir := t.TempDir()
	p := launch(t, vars{"JETBOX_DATA_DIR": dir}, "up")
	url := p.address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })

	info, err := os.Stat(noteFile(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("note = %v, %v, want a file only its owner can read", info, err)
	}
	dsn, err := readNote(dir)
	if err != nil {
		t.Fatal(err)
	}
	watchEndings(t, dsn)
	if code, stdout, stderr := invoke(t, vars{}, "status", "--data-dir", dir); code != exitOK || !strings.Contains(stdout, "worker") {
		t.Errorf("status = %d %q %q, want the worker's line", code, stdout, stderr)
	}

	if code := p.stop(); code != exitOK {
		t.Errorf("up ended with %d, want %d", code, exitOK)
	}
	if _, err := os.Stat(noteFile(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("note = %v, want it gone with the servers", err)
	}
	code, _, stderr := invoke(t, vars{}, "status", "--data-dir", dir)
	if code != exitUsage || !strings.Contains(stderr, "no jetbox up runs in "+dir) {
		t.Errorf("status = %d %q, want %d and the directory", code, stderr, exitUsage)
	}
}

// Whoever stops the first start has what they wanted, and can start again.
func TestUp_EndsWellWhenItsStartIsStopped(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Postgres of its own")
	}
	dir := t.TempDir()
	for _, at := range []string{"starting a private Postgres", "applied 00001"} {
		p := launch(t, vars{"JETBOX_DATA_DIR": dir}, "up")
		testenv.Eventually(t, at, func() bool { return strings.Contains(p.stderr.String(), at) })
		if code := p.stop(); code != exitOK || strings.Contains(p.stderr.String(), "jetbox:") {
			t.Errorf("up stopped at %q = %d %q, want %d and no error", at, code, p.stderr.String(), exitOK)
		}
	}
	p := launch(t, vars{"JETBOX_DATA_DIR": dir}, "up")
	url := p.address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
}

// The private Postgres is there only while up runs.
func TestUp_WaitsForAFunctionThatIsCreatedAfterItsStart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Postgres of its own")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "jetbox.yaml")
	if err := os.WriteFile(file, []byte("worker:\n  handlers:\n    - {subject: jobs.shout, sql: public.shout}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, vars{"JETBOX_DATA_DIR": filepath.Join(dir, "data")}, "up", "--config", file)
	testenv.Eventually(t, "the warning", func() bool {
		return strings.Contains(p.stderr.String(), "worker waits for") && strings.Contains(p.stderr.String(), "public.shout(jetbox.message) does not exist")
	})
	dsn, err := readNote(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	execute(t, db, `CREATE FUNCTION public.shout(m jetbox.message) RETURNS json LANGUAGE sql AS 'SELECT m.payload'`)
	if got := succeed(t, vars{}, "send", "--data-dir", filepath.Join(dir, "data"), "--wait", "20s", "jobs.shout", "1"); !strings.Contains(got, "done") {
		t.Errorf("send = %s, want it done", got)
	}
}
