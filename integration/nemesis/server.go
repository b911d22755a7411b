package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jetboxhq/jetbox/internal/localenv"
	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

// server is a nats-server as a process of its own.
type server struct {
	*daemon
	addr   string
	routes string // where it hears the other servers
	store  string

	older sync.Mutex // one copy of the store at a time: a slow machine ends a fault late
}

const serverConfig = `
server_name: %s
listen: %s
jetstream {
	store_dir: %q
	max_file_store: %s
	sync_interval: %s
}
%s`

// clusterConfig has no server reached by others than its peers' own links to it:
// what they tell one another about a third one leads nowhere.
const clusterConfig = `
cluster {
	name: nemesis
	listen: %s
	no_advertise: true
	advertise: "127.0.0.1:1"
	routes: [%s]
}
`

// fileStore is what the disk of a server holds: little enough to be filled.
const fileStore = "96MB"

func (l *lab) addServers(ctx context.Context) (err error) {
	for _, name := range l.plan.serverNames() {
		s := &server{store: l.path(name)}
		if s.addr, err = freeAddr(ctx); err != nil {
			return err
		}
		if s.routes, err = freeAddr(ctx); err != nil {
			return err
		}
		s.daemon = &daemon{Process: &process.Process{
			Name: name, Executable: l.bin.nats, Args: []string{"-c", l.path(name + ".conf")}, Log: l.path(name + ".log"),
		}}
		l.servers[name] = s
	}
	return nil
}

// configureServers comes after the links, which the servers' routes go through.
func (l *lab) configureServers() error {
	for name, s := range l.servers {
		text := fmt.Sprintf(serverConfig, name, s.addr, s.store, fileStore, l.syncInterval(), l.clusterOf(name))
		if err := os.WriteFile(l.path(name+".conf"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// clusterOf is empty for a server alone.
func (l *lab) clusterOf(name string) string {
	var urls []string
	for _, route := range l.plan.routeNames() {
		if strings.HasPrefix(route, link(name, "")) {
			urls = append(urls, "nats://"+l.links[route].Addr())
		}
	}
	if urls == nil {
		return ""
	}
	return fmt.Sprintf(clusterConfig, l.servers[name].routes, strings.Join(urls, ", "))
}

func (l *lab) syncInterval() string {
	if l.plan.SyncEach {
		return "always"
	}
	return "2m"
}

// copyStore copies the server's disk while the server stands still, as a
// snapshot of a volume would.
func (s *server) copyStore(ctx context.Context) error {
	if err := os.RemoveAll(s.copied()); err != nil {
		return err
	}
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := os.CopyFS(s.copied(), os.DirFS(s.store))
	return errors.Join(err, s.signal(syscall.SIGCONT))
}

// restoreStore puts the older copy in the place of the store.
func (s *server) restoreStore() error {
	if err := os.RemoveAll(s.store); err != nil {
		return err
	}
	return os.Rename(s.copied(), s.store)
}

func (s *server) copied() string { return s.store + ".older" }

// postgres is a private server that can be crashed and started again.
type postgres struct {
	dir   string
	env   []string
	first string // URL of the first start; later ones have other ports

	mu sync.Mutex
	p  *localenv.Postgres
}

// postgresSettings keep the WAL writer from saving what an asynchronous commit
// has not flushed.
var postgresSettings = []string{"wal_writer_delay=10s", "track_commit_timestamp=on", "checkpoint_timeout=1h", "log_min_messages=warning"}

func startPostgres(ctx context.Context, dir string, clock bool) (_ *postgres, err error) {
	p := &postgres{dir: dir}
	if clock {
		p.env = p.clockEnv()
		if err := p.shift(0); err != nil {
			return nil, err
		}
	}
	if p.p, err = localenv.StartPostgresIn(ctx, dir, p.env, postgresSettings...); err != nil {
		return nil, err
	}
	p.first = p.p.URL()
	return p, nil
}

// crash kills the postmaster with sig, and then calls then while it is away.
// SIGQUIT is an immediate stop, which the log recovers from; SIGKILL also
// leaves its children for a moment.
func (p *postgres) crash(sig syscall.Signal, then func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := p.pid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("postgres: %v: %w", sig, err)
	}
	if err := p.p.Stop(); err != nil { // waits for its end
		return err
	}
	then()
	return nil
}

// start starts a crashed server, on another port. A backend that was busy when
// its postmaster was killed can be in the way for a while.
func (p *postgres) start(ctx context.Context, links map[string]*proxy.Proxy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := until(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		started, err := localenv.StartPostgresIn(ctx, p.dir, p.env, postgresSettings...)
		if err == nil {
			p.p = started
		}
		return err == nil, err
	})
	if err != nil {
		return errors.Join(errNoPostgres, err)
	}
	for name, link := range links {
		if strings.HasSuffix(name, "→postgres") {
			link.Retarget(p.host())
		}
	}
	return nil
}

var errNoPostgres = errors.New("postgres does not start again")

func (p *postgres) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "postgres", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(line)
}

// host is where the server listens now.
func (p *postgres) host() string { return parsed(p.p.URL()).Host }

// through is the way to the server over a link.
func (p *postgres) through(link *proxy.Proxy) string {
	u := parsed(p.first)
	u.Host = link.Addr()
	return u.String()
}

func parsed(rawURL string) *url.URL {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err) // localenv's own URL
	}
	return u
}

func (p *postgres) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.p.Stop()
}
