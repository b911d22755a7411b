package localenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// helperDir makes this binary a process that starts a server there and waits to
// be killed.
const helperDir = "LOCALENV_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		holdServer(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestPostgres_KeepsItsDataOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	execute(t, p.URL(), `CREATE TABLE kept AS SELECT 42 AS n`)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second Stop = %v, want nil", err)
	}
	if got := query(t, start(t, dir).URL(), `SELECT n::text FROM kept`); got != "42" {
		t.Errorf("kept = %s, want 42", got)
	}
}

func TestPostgres_IsSafeByDefault(t *testing.T) {
	t.Parallel()
	if _, err := installed().programs(t.Context(), ""); err != nil {
		t.Skip("PostgreSQL: ", err)
	}
	p, err := StartPostgres(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, p)
	got := query(t, p.URL(), `SELECT concat_ws(' ', current_setting('fsync'), current_setting('synchronous_commit'),
		current_setting('full_page_writes'), current_setting('listen_addresses'), current_setting('unix_socket_directories'))`)
	if want := "on on on 127.0.0.1 "; got != want {
		t.Errorf("settings = %q, want %q", got, want)
	}
	cfg, err := pgx.ParseConfig(p.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = "guessed"
	if conn, err := pgx.ConnectConfig(t.Context(), cfg); err == nil {
		t.Errorf("connected with a wrong password: %v", conn.Close(t.Context()))
	}
}

func TestPostgres_StartsAgainAfterKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	execute(t, p.URL(), `CREATE TABLE kept AS SELECT 42 AS n`)
	if err := syscall.Kill(serverPID(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stop(t, p)
	if got := query(t, start(t, dir).URL(), `SELECT n::text FROM kept`); got != "42" {
		t.Errorf("kept = %s, want 42", got)
	}
}

func TestPostgres_DiesWithTheProcessThatStartedIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop(t, start(t, dir)) // so that the helper is quick
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	var url string
	if _, err := fmt.Fscanln(out, &url); err != nil {
		t.Fatal(err)
	}
	if _, err := startSettings(t, dir); err == nil || !strings.Contains(err.Error(), "another process is using") {
		t.Errorf("start beside the helper = %v, want a refusal", err)
	}
	_ = helper.Process.Kill()
	_ = helper.Wait() // killed
	if runtime.GOOS == "linux" {
		waitGone(t, url)
	}
	start(t, dir)
}

func waitGone(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return
		}
		_ = conn.Close(t.Context())
		if time.Now().After(deadline) {
			t.Fatal("the server outlived the process that started it")
		}
	}
}

func holdServer(dir string) {
	p, err := StartPostgres(context.Background(), dir, "fsync=off")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(p.URL())
	time.Sleep(time.Minute)
}

func TestPostgres_TakesOverFromAnOrphan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	stop(t, p)
	c, unlock, err := openCluster(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := installed().programs(t.Context(), c.major())
	if err != nil {
		t.Fatal(err)
	}
	user, err := serverUser(c.data())
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := c.run(t.Context(), bin, user)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, orphan)
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
}

func TestPostgres_SaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	_, err := startSettings(t, t.TempDir(), "max_connections=none")
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "max_connections"`) {
		t.Errorf("StartPostgres = %v, want the server's own words", err)
	}
}

func TestPostgres_SaysWhatHelpsWhereThereIsNone(t *testing.T) {
	t.Parallel()
	_, err := finder{lookPath: nowhere}.start(t.Context(), t.TempDir(), nil, nil)
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("start = %v, want ErrNoPostgres", err)
	}
	for _, want := range []string{"apt-get install postgresql", "brew install", "Docker", "DATABASE_URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
}

func TestPostgres_DoesNotLeaveItsDataForAnEmptyServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop(t, start(t, dir))
	f := installed()
	f.lookPath, f.patterns = onlyDocker, nil
	if _, err := f.start(t.Context(), dir, nil, nil); err == nil || !strings.Contains(err.Error(), "needs the programs of PostgreSQL") {
		t.Errorf("start without the programs = %v, want a refusal", err)
	}
}

func start(t *testing.T, dir string) *Postgres {
	t.Helper()
	p, err := startSettings(t, dir)
	if errors.Is(err, ErrNoPostgres) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

func startSettings(t *testing.T, dir string, more ...string) (*Postgres, error) {
	t.Helper()
	return StartPostgres(t.Context(), dir, append([]string{"fsync=off"}, more...)...)
}

func stop(t *testing.T, p *Postgres) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func serverPID(t *testing.T, dir string) int {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, "postgres", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func nowhere(string) (string, error) { return "", exec.ErrNotFound }
