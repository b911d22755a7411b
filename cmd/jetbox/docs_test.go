package main

import (
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/config"
)

// blocks are the parts of a page that are in a language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has nothing in %s", page, language)
	}
	return list
}

func TestHandlersPage_HasFilesThatLoad(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "docs/handlers.md", "yaml") {
		f, err := config.Load(yaml(t, text))
		if err != nil || len(f.Worker.Handlers) != 3 {
			t.Errorf("%d handlers, %v, want one of each kind", len(f.Worker.Handlers), err)
		}
	}
}

// In a transaction that is rolled back: roles belong to the whole server.
func TestHandlersPage_HasSQLThatRuns(t *testing.T) {
	t.Parallel()
	tx, err := testenv.Database(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	for _, sql := range append(blocks(t, "docs/handlers.md", "sql"), `SET LOCAL ROLE app_worker`) {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var result string
	err = tx.QueryRow(t.Context(), `SELECT app.book(ROW(NULL, 'jobs.order.placed', NULL, '{}', '{"id": 7, "total": 3}', NULL, NULL, 1)::jetbox.message)`).Scan(&result)
	if err != nil || result != `{"total" : 3}` {
		t.Errorf("book = %s, %v, want the total", result, err)
	}
}

func TestHandlersPage_HasAScriptThatEndsAsItSays(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the script needs curl")
	}
	renderer := newHook(t, status)
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, tt := range map[string]struct {
		payload, url string
		code         int
	}{
		"done":     {"cat", renderer.URL, 0},
		"no":       {"", renderer.URL, 65},
		"not yet":  {"bad", renderer.URL, 75},
		"far away": {"cat", gone.URL, 75},
	} {
		cmd := exec.Command("sh", "-c", blocks(t, "docs/handlers.md", "sh")[0])
		cmd.Env = append(os.Environ(), "RENDERER="+tt.url, "JETBOX_IDEMPOTENCY_KEY=worker/1")
		cmd.Stdin = strings.NewReader(tt.payload)
		out, _ := cmd.Output() // the exit code is what counts
		if code := cmd.ProcessState.ExitCode(); code != tt.code || (code == 0 && string(out) != tt.payload) {
			t.Errorf("%s: exit %d, stdout %q, want %d", name, code, out, tt.code)
		}
	}
	for _, key := range renderer.keys() {
		if key != "worker/1" {
			t.Errorf("called with key %q", key)
		}
	}
}

var (
	described  = regexp.MustCompile(`fqName: "(\w+)"`)
	tabled     = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")
	alertedFor = regexp.MustCompile(`\b(?:jetbox|outbox|inbox|jetstream)_\w+`)
)

// registered returns our metrics in the registry of jetbox up, which has every
// part. It asks for descriptions: those with labels have no values yet.
func registered(t *testing.T) map[string]bool {
	t.Helper()
	s := daemonFlags{}.settings(world{stderr: io.Discard})
	s.checkWorker()
	db, err := parseDatabase("postgres://nobody@127.0.0.1/none", "test") // nothing connects
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.newRelay(db.ConnConfig); err != nil {
		t.Fatal(err)
	}
	_, closeAll, err := s.newWorker(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	d, err := s.newDoor(t.Context(), apiFlags{}, db, &net.TCPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.pool.Close()
	descs := make(chan *prometheus.Desc)
	go func() { s.metrics.Describe(descs); close(descs) }()
	names := map[string]bool{}
	for desc := range descs {
		m := described.FindStringSubmatch(desc.String())
		if m == nil {
			t.Fatalf("%s names no metric", desc)
		}
		if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") {
			names[m[1]] = true
		}
	}
	return names
}

func TestDocs_NameEveryMetric(t *testing.T) {
	t.Parallel()
	const page = "docs/operations.md"
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	names, named := registered(t), map[string]bool{}
	for _, m := range tabled.FindAllStringSubmatch(section, -1) {
		named[m[1]] = true
		if !names[m[1]] {
			t.Errorf("%s has %s, which no part registers", page, m[1])
		}
	}
	for name := range names {
		if !named[name] {
			t.Errorf("%s lacks %s", page, name)
		}
	}
	for _, name := range alertedFor.FindAllString(strings.Join(blocks(t, page, "yaml"), ""), -1) {
		if !names[name] {
			t.Errorf("an alert of %s asks for %s, which no part registers", page, name)
		}
	}
}
