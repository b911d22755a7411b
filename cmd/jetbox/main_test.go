package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// TestMain also serves as jetbox itself, for a test that needs a whole process.
func TestMain(m *testing.M) {
	if os.Getenv("JETBOX_IS_THIS_TEST") != "" {
		main()
	}
	testenv.Main(m)
}

// output is what a process writes while the test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

type vars map[string]string

func (v vars) environ() []string {
	var list []string
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	return list
}

// invoke runs a command to its end, which it must come to by itself.
func invoke(t *testing.T, v vars, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs output
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, args, world{environ: v.environ(), stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

// process is a daemon that runs beside the test.
type process struct {
	stderr output
	stop   func() int // as SIGTERM does; returns the exit code
}

// launch starts a daemon that the test's end stops. Any port will do.
func launch(t *testing.T, v vars, args ...string) *process {
	t.Helper()
	if v["HTTP_ADDR"] == "" {
		v["HTTP_ADDR"] = "127.0.0.1:0"
	}
	p := &process{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, args, world{environ: v.environ(), stdout: &p.stderr, stderr: &p.stderr}) }()
	p.stop = sync.OnceValue(func() int {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if code := p.stop(); code != exitOK {
			t.Errorf("jetbox %s ended with %d:\n%s", strings.Join(args, " "), code, p.stderr.String())
		}
	})
	return p
}

// address waits for the daemon's HTTP server.
func (p *process) address(t *testing.T) string {
	t.Helper()
	var addr string
	testenv.Eventually(t, "the daemon to log its address", func() bool {
		for line := range strings.Lines(p.stderr.String()) {
			var record struct {
				Addr string `json:"http_addr"`
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Addr != "" {
				addr = record.Addr
			}
		}
		return addr != ""
	})
	return "http://" + addr
}

func dsn(c *pgx.ConnConfig) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(c.User, c.Password),
		Host: fmt.Sprintf("%s:%d", c.Host, c.Port), Path: c.Database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// installation is a migrated database and a configured stream of the test's own.
type installation struct {
	db     *pgxpool.Pool
	prefix string // of the stream's subjects
	vars   vars
}

func install(t *testing.T, workerYAML string) installation {
	t.Helper()
	db, prefix := testenv.Database(t), testenv.Subject(t)
	file := filepath.Join(t.TempDir(), "jetbox.yaml")
	text := fmt.Sprintf("streams:\n  - {name: %s, subjects: [%s.>], storage: memory}\n%s",
		strings.ToUpper(prefix), prefix, strings.ReplaceAll(workerYAML, "PREFIX", prefix))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return installation{db, prefix, vars{
		"DATABASE_URL": dsn(db.Config().ConnConfig), "NATS_URL": testenv.NATSURL(t),
		"JETBOX_CONFIG": file, "SHUTDOWN_TIMEOUT": "5s",
	}}
}

func (i installation) with(more vars) vars {
	v := vars{}
	for _, m := range []vars{i.vars, more} {
		for name, value := range m {
			v[name] = value
		}
	}
	return v
}

func execute(t *testing.T, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func one[T any](t *testing.T, db *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
