package localenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/wait"
)

const startTimeout = 60 * time.Second

// errEnded reports a server that gave up while starting.
var errEnded = errors.New("the server ended")

// major is the version that made the data; none have been made if empty.
func (c cluster) major() string {
	v, _ := os.ReadFile(filepath.Join(c.data(), "PG_VERSION")) // absent: not made yet
	return strings.TrimSpace(string(v))
}

func (c cluster) startInstalled(ctx context.Context, bin string) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	user, err := serverUser(c.data())
	if err != nil {
		return nil, err
	}
	if err := c.initialize(ctx, bin, user); err != nil {
		return nil, err
	}
	c.stopOrphan(ctx)
	// What a killed server leaves, its children and their shared memory, is gone
	// in a moment; and somebody else can take the free port before we do.
	for range 30 {
		var p *Postgres
		if p, err = c.run(ctx, bin, user); !errors.Is(err, errEnded) {
			return p, err
		}
		if !wait.Sleep(ctx, 100*time.Millisecond) {
			break
		}
	}
	return nil, fmt.Errorf("%w: %s (%s)", err, c.lastWords(), c.logFile())
}

// initialize makes the data aside, so that a kill leaves nothing half made.
func (c cluster) initialize(ctx context.Context, bin string, user *syscall.Credential) error {
	if user != nil {
		if err := handOver(user, c.dir, c.passwordFile()); err != nil {
			return err
		}
	}
	if c.major() != "" {
		return nil
	}
	aside := c.data() + ".new"
	if err := makeDir(aside, user); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", aside,
		"--username="+superuser, "--pwfile="+c.passwordFile(), "--auth=scram-sha-256",
		"--encoding=UTF8", "--no-locale")
	cmd.Dir, cmd.Env = aside, serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user, Setpgid: true}
	if !c.durable() {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(aside, c.data()); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	return nil
}

func (c cluster) durable() bool {
	for _, s := range c.settings {
		if s == "fsync=off" {
			return false
		}
	}
	return true
}

// run starts postgres itself, not pg_ctl: a child that dies with us.
func (c cluster) run(ctx context.Context, bin string, user *syscall.Credential) (*Postgres, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(filepath.Join(bin, "postgres"), c.arguments(port)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.data(), append(serverEnv(), c.env...), log, log
	cmd.SysProcAttr = childAttr(user)
	child, err := startChild(cmd)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	p, err := c.serve(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "from "+bin, child.ended, child.stop)
	if err != nil {
		return nil, errors.Join(err, child.stop())
	}
	return p, nil
}

func (c cluster) arguments(port int) []string {
	args := []string{"-D", c.data()}
	for _, s := range append([]string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=",
		"max_connections=100",
		"shared_buffers=128MB",
	}, c.settings...) {
		args = append(args, "-c", s)
	}
	return args
}

// serverEnv has none of our own environment: neither a PG* variable nor a
// locale shall change what the server does.
func serverEnv() []string { return []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"} }

// stopOrphan ends a server that outlived the process which started it, as can
// happen where no system call ties a child to its parent. We hold the lock, so
// nobody is using it.
func (c cluster) stopOrphan(ctx context.Context) {
	file, _ := os.ReadFile(filepath.Join(c.data(), "postmaster.pid")) // absent: none
	lines := strings.Split(string(file), "\n")
	if len(lines) < 4 {
		return
	}
	pid, err := strconv.Atoi(lines[0])
	if err == nil && c.isOurs(ctx, net.JoinHostPort("127.0.0.1", lines[3])) {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // at once, and nothing committed is lost
	}
}

// isOurs asks the server itself: the process with a stale pid may be any other.
func (c cluster) isOurs(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url(host, "postgres"))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(ctx) }()
	var data string
	err = conn.QueryRow(ctx, `SHOW data_directory`).Scan(&data)
	return err == nil && data == c.data()
}

// lastWords is the last line of the server's log that says why it ended.
func (c cluster) lastWords() string {
	log, _ := os.ReadFile(c.logFile()) // unreadable: nothing to add
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], "FATAL:") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
