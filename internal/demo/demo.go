// Package demo proves the promise in front of the person who doubts it.
//
// It runs a small shop: each order is a transaction that also inserts an outbox
// row, in plain SQL, and one in seven is rolled back. A relay and two workers run
// as real processes; while orders come in, the relay is killed between publish
// and record, the broker is restarted, one worker is killed between commit and
// ack and the other between delivery and commit. The handler writes to a table
// without a unique constraint, so that a doubled effect shows. Then it counts.
//
// It proves nothing about a machine that loses power: every disk stays.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/localenv"
	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/migrations"
)

// AckBeforeCommit is the rule that Config.Break can break: it acks every message
// as it is delivered, as a careless worker would.
const AckBeforeCommit = "ack-before-commit"

// Config says what to show. The zero value is the whole demo.
type Config struct {
	// Executable is the jetbox binary whose relay and worker run.
	Executable string
	// Orders is how many orders commit at least. Zero means 3,000.
	Orders int
	// Break names a rule to break, to see the demo fail. Empty breaks none.
	Break string
	// Say receives what is happening, a line at a time. Nil tells nobody.
	Say func(format string, args ...any)
	// Progress receives how far things are, several times a second and beside
	// Say. Nil counts only at the end.
	Progress func(Progress)
}

func (c Config) withDefaults() Config {
	c.Orders = cmp.Or(c.Orders, 3000)
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	return c
}

func (c Config) validate() error {
	if c.Orders < 0 {
		return fmt.Errorf("%d orders cannot be placed", c.Orders)
	}
	if c.Break != "" && c.Break != AckBeforeCommit {
		return fmt.Errorf("no rule is called %q", c.Break)
	}
	return nil
}

// Result is what was counted, and the faults it was counted under.
type Result struct {
	Committed int64 `json:"committed"` // orders
	Published int64 `json:"published"` // messages the stream stored, repeats included
	Effects   int64 `json:"effects"`
	Lost      int64 `json:"lost"`    // orders without an effect
	Doubled   int64 `json:"doubled"` // effects beyond the first of an order
	Phantom   int64 `json:"phantom"` // effects of orders that were rolled back

	RolledBack  int64 `json:"rolled_back"`
	Unrecorded  int64 `json:"killed_before_record"` // messages published when the relay died before it recorded them
	Unacked     int64 `json:"killed_before_ack"`    // effects committed when the worker died before it acked them
	Uncommitted int64 `json:"killed_before_commit"` // messages with the workers when one died before it committed them
	Restarts    int64 `json:"broker_restarts"`
	ElapsedMSec int64 `json:"elapsed_ms"`
}

// Pass reports whether every committed order had exactly one effect.
func (r Result) Pass() bool {
	return r.Committed > 0 && r.Effects == r.Committed && r.Lost == 0 && r.Doubled == 0 && r.Phantom == 0
}

// Run shows the demo on servers of its own, in a directory that it removes.
func Run(ctx context.Context, cfg Config) (result Result, err error) {
	if err := cfg.validate(); err != nil {
		return Result{}, fmt.Errorf("demo: %w", err)
	}
	start := time.Now()
	s, err := open(ctx, cfg.withDefaults())
	if s != nil {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	if err == nil {
		err = s.play(ctx)
	}
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("demo: %w", context.Cause(ctx)) // what broke off is noise
	}
	if err != nil {
		return Result{}, fmt.Errorf("demo: %w", err)
	}
	result, err = s.count(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("demo: %w", err)
	}
	result.ElapsedMSec = time.Since(start).Milliseconds()
	return result, nil
}

// stage is everything the demo runs on.
type stage struct {
	Config
	dir      string
	postgres *localenv.Postgres
	broker   *localenv.NATS
	db       *pgxpool.Pool
	nc       *nats.Conn
	stream   jetstream.Stream
	jobs     []*process.Process

	relay   *process.Process
	workers [2]*process.Process

	relayDB    *proxy.Proxy // between the relay and Postgres
	workerNATS *proxy.Proxy // between the first worker and NATS
	workerDB   *proxy.Proxy // between the second worker and Postgres

	result Result
}

// open starts the servers. What it has started is in the stage even when it
// returns an error.
func open(ctx context.Context, cfg Config) (*stage, error) {
	s := &stage{Config: cfg}
	var err error
	if s.dir, err = os.MkdirTemp("", "jetbox-demo-"); err != nil {
		return nil, fmt.Errorf("temporary directory: %w", err)
	}
	if s.postgres, err = localenv.StartPostgres(ctx, s.dir); err != nil {
		return s, err
	}
	s.Say("postgres  %s", s.postgres.Origin())
	if s.broker, err = localenv.StartNATS(s.dir, 0); err != nil {
		return s, err
	}
	s.Say("nats      embedded, JetStream on disk, sync_interval always")
	if s.db, err = pgxpool.New(ctx, s.postgres.URL()); err != nil {
		return s, fmt.Errorf("open database: %w", err)
	}
	if s.nc, err = nats.Connect(s.broker.URL(), nats.MaxReconnects(-1)); err != nil {
		return s, fmt.Errorf("connect to nats: %w", err)
	}
	n, err := migrations.Up(ctx, s.db.Config().ConnConfig)
	if err != nil {
		return s, err
	}
	s.Say("migrated  %d files", n)
	return s, s.openShop(ctx)
}

// play is the demo: proxies and a report run beside the acts.
func (s *stage) play(ctx context.Context) error {
	aside, done := context.WithCancel(context.WithoutCancel(ctx)) // the processes stop before their links do
	defer done()
	var g errgroup.Group
	if err := s.openProxies(aside, &g); err != nil {
		done()
		return errors.Join(err, g.Wait())
	}
	g.Go(func() error {
		s.report(aside)
		return nil
	})
	err := s.acts(ctx)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.logTails())
	}
	for _, p := range s.jobs {
		if stopErr := p.Stop(); err == nil {
			err = stopErr // after another error, how a process ends is noise
		}
	}
	done()
	return errors.Join(err, g.Wait())
}

func (s *stage) openProxies(ctx context.Context, g *errgroup.Group) error {
	for _, l := range []struct {
		proxy  **proxy.Proxy
		target string
	}{{&s.relayDB, s.postgres.URL()}, {&s.workerNATS, s.broker.URL()}, {&s.workerDB, s.postgres.URL()}} {
		p, err := proxy.Listen(hostOf(l.target))
		if err != nil {
			return err
		}
		*l.proxy = p
		g.Go(func() error { return p.Run(ctx) })
	}
	return nil
}

func (s *stage) close() error {
	var errs []error
	if s.nc != nil {
		s.nc.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// logTails shows the end of every process's log.
func (s *stage) logTails() string {
	var tails string
	for _, p := range s.jobs {
		tails += p.Tail()
	}
	return tails
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err) // localenv's own URL
	}
	return u.Host
}

// via returns rawURL with the proxy in the server's place.
func via(rawURL string, p *proxy.Proxy) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err) // localenv's own URL
	}
	u.Host = p.Addr()
	return u.String()
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }
