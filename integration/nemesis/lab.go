package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/migrations"
)

// lab is the servers and processes of one run, and the links between them.
type lab struct {
	plan     plan
	dir      string
	bin      binaries
	canary   string // in every payload, and in no log
	postgres *postgres
	db       *pgxpool.Pool // around every fault
	nc       *nats.Conn    // the same
	js       jetstream.JetStream
	daemons  map[string]*daemon
	servers  map[string]*server
	links    map[string]*proxy.Proxy
	acks     acks
	api      string // URL
	http     *http.Client
}

// stream and consumer are what every run is about.
const (
	stream   = "JOBS"
	consumer = "nemesis"
)

// open starts the servers; the daemons start with run. What has been started
// is in the lab even when it returns an error.
func open(ctx context.Context, p plan, dir string, bin binaries, g *errgroup.Group) (*lab, error) {
	l := &lab{
		plan: p, dir: dir, bin: bin, canary: fmt.Sprintf("canary%dx", time.Now().UnixNano()),
		daemons: map[string]*daemon{}, servers: map[string]*server{}, links: map[string]*proxy.Proxy{},
		http: &http.Client{Timeout: 5 * time.Second}, acks: acks{at: map[uint64]time.Time{}},
	}
	var err error
	if l.postgres, err = startPostgres(ctx, dir, p.Clock); err != nil {
		return l, err
	}
	if err := l.addServers(ctx); err != nil {
		return l, err
	}
	if err := l.addLinks(); err != nil {
		return l, err
	}
	if err := l.configureServers(); err != nil {
		return l, err
	}
	for _, p := range l.links {
		g.Go(func() error { return p.Run(ctx) })
	}
	for _, s := range l.servers {
		g.Go(func() error { return s.supervise(ctx) })
	}
	if err := l.connect(ctx); err != nil {
		return l, err
	}
	return l, l.addDaemons(ctx)
}

func (l *lab) connect(ctx context.Context) (err error) {
	if l.db, err = pgxpool.New(ctx, l.postgres.through(l.links[direct])); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if _, err := migrations.Up(ctx, l.db.Config().ConnConfig); err != nil {
		return err
	}
	if _, err := l.db.Exec(ctx, schemaSQL); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.RetryOnFailedConnect(true)}
	if l.nc, err = nats.Connect(l.brokers(nil), opts...); err != nil {
		return fmt.Errorf("connect to nats: %w", err)
	}
	l.js, err = jetstream.New(l.nc)
	return err
}

// direct is the link that no fault strikes.
const direct = "nemesis→postgres"

func (l *lab) addLinks() error {
	for _, name := range append(l.plan.linkNames(), direct) {
		p, err := proxy.Listen(l.end(name))
		if err != nil {
			return err
		}
		l.links[name] = p
	}
	return nil
}

// end is where a link leads to.
func (l *lab) end(name string) string {
	from, to, _ := strings.Cut(name, "→")
	switch s := l.servers[to]; {
	case s == nil:
		return l.postgres.host()
	case l.servers[from] != nil:
		return s.routes
	default:
		return s.addr
	}
}

// brokers lists the servers as a client reaches them: a daemon through its links.
func (l *lab) brokers(of *daemon) string {
	var urls []string
	for _, name := range l.plan.serverNames() {
		addr := l.servers[name].addr
		if of != nil {
			addr = l.links[link(of.Name, name)].Addr()
		}
		urls = append(urls, "nats://"+addr)
	}
	return strings.Join(urls, ",")
}

func (l *lab) addDaemons(ctx context.Context) error {
	if err := os.WriteFile(l.path("jetbox.yaml"), []byte(l.yaml()), 0o600); err != nil {
		return err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	l.api = "http://" + addr
	for _, name := range daemonNames {
		verb, _, _ := strings.Cut(name, "-")
		d := &daemon{Process: &process.Process{Name: name, Executable: l.bin.jetbox, Args: []string{verb}, Log: l.path(name + ".log")}}
		d.Env = []string{
			"DATABASE_URL=" + named(l.postgres.through(l.links[link(name, "postgres")]), name), "NATS_URL=" + l.brokers(d),
			"HTTP_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "LOG_LEVEL=debug", "JETBOX_CONFIG=" + l.path("jetbox.yaml"),
			"SHUTDOWN_TIMEOUT=3s",
		}
		switch name {
		case "api":
			d.Env = append(d.Env, "HTTP_ADDR="+addr)
		case "worker-2":
			d.Executable, d.Args, d.Env = l.bin.goworker, nil, append(d.Env, "STREAM="+stream, "CONSUMER="+consumer)
		}
		l.daemons[name] = d
	}
	return nil
}

// yaml keeps the times short, so that takeovers and redeliveries fit into a run.
func (l *lab) yaml() string {
	retention := "limits"
	if l.plan.WorkQueue {
		retention = "workqueue"
	}
	return fmt.Sprintf(`
streams:
  - name: %s
    subjects: ["jobs.>"]
    retention: %s
    replicas: %d
relay:
  lease: 2s
  confirm_consumer: %s
  confirm_grace: 5s
worker:
  stream: %s
  consumer: %s
  ack_wait: 2s
  batch: 100
  retry_delay: 50ms
  max_attempts: 8
  handlers:
    - {subject: jobs.>, sql: nemesis.handle}
`, stream, retention, l.plan.Servers, consumer, stream, consumer)
}

// heal undoes what a fault may have left: one that was broken off, or one whose
// traces another has brought back with an older disk.
func (l *lab) heal(ctx context.Context) error {
	for _, p := range l.links {
		p.Release(proxy.ToServer)
		p.Release(proxy.ToClient)
		p.Slow(0, 0)
		p.KeepCommits()
	}
	if err := l.makeRoom(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

func (l *lab) close() error {
	if l.nc != nil {
		l.nc.Close()
	}
	if l.db != nil {
		l.db.Close()
	}
	if l.postgres != nil {
		return l.postgres.stop()
	}
	return nil
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// named makes the sessions of a daemon recognisable.
func named(database, name string) string {
	return database + "&application_name=" + url.QueryEscape(name)
}

// freeAddr is free, and stays so while a server that has it is away: it is below
// the ports that systems give to clients.
func freeAddr(ctx context.Context) (string, error) {
	for {
		addr := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
}

// count asks the database for one number.
func (l *lab) count(ctx context.Context, sql string, args ...any) (n int64, err error) {
	if err := l.db.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	return n, nil
}

var errTimeout = errors.New("it did not happen in time")

// until asks done several times a second for at most d. An error of done is a
// server that is not back yet.
func until(ctx context.Context, d time.Duration, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, errTimeout)
	defer cancel()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
