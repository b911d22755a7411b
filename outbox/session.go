package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// session is one life of the relay: connections, lease, position, and the
// pipeline that runs until something breaks. Whatever broke, the next session
// reads the truth from the ledger; rows that were published but not recorded go
// out again under the same IDs.
type session struct {
	*Relay
	nc     *nats.Conn
	js     jetstream.JetStream
	lease  *lease
	upkeep *pgx.Conn
	healer *healer
	conns  []*pgx.Conn

	purged    chan struct{} // a stream of ours was, says the server
	uncovered chan struct{} // the BRIN lacks rows

	inFlight atomic.Int64 // batches that are read and not yet recorded
	behind   atomic.Bool  // something may be pending
}

// caughtUp notes an empty poll: with nothing in flight, nothing is pending.
func (s *session) caughtUp() {
	if s.inFlight.Load() == 0 {
		s.behind.Store(false)
		s.healthy()
	}
}

// sending notes a batch on its way.
func (s *session) sending() {
	s.inFlight.Add(1)
	s.behind.Store(true)
}

// uncover notes that the BRIN lacks rows.
func (s *session) uncover() { wait.Signal(s.uncovered) }

// standingBy leaves the lag to the relay that leads.
func (s *session) standingBy() {
	s.m.noLag()
	s.healthy()
}

// session returns what ended it.
func (r *Relay) session(ctx context.Context) error {
	s := &session{Relay: r, uncovered: make(chan struct{}, 1)}
	defer s.close()
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.lease.acquire(ctx, s.standingBy); err != nil {
		return err
	}
	defer s.release()
	if err := s.rest(ctx); err != nil {
		return err
	}
	r.m.active.Set(1)
	defer r.m.active.Set(0)
	err := s.lead(ctx)
	if err != nil && ctx.Err() == nil {
		s.m.measureLag(ctx, s.lease.conn) // sessions that fail at once never come to it
	}
	return err
}

func (s *session) connect(ctx context.Context) error {
	conn, err := s.open(ctx, "lease", nil)
	if err != nil {
		return err
	}
	if err := s.checkPrimary(ctx, conn); err != nil {
		return err
	}
	s.lease = &lease{conn: conn, owner: s.cfg.Owner, ttl: s.cfg.Lease}
	if err := s.connectNATS(ctx); err != nil {
		s.m.measureLag(ctx, conn) // it grows while nobody publishes
		return err
	}
	return nil
}

func (s *session) connectNATS(ctx context.Context) (err error) {
	if s.nc, err = s.dial(); err != nil {
		return fmt.Errorf("connect to nats: %w", err)
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	if err := streams.Ensure(ctx, s.js, s.cfg.Streams, s.cfg.VerifyStreams); err != nil {
		return fmt.Errorf("ensure streams: %w", err)
	}
	// A user who may not read advisories gets none; the checks by time remain.
	s.purged = make(chan struct{}, 1)
	if _, err := s.nc.Subscribe(apiAdvisories, s.advise); err != nil {
		return fmt.Errorf("subscribe to advisories: %w", err)
	}
	return nil
}

// advise passes on that a stream of ours was purged: of all the calls to the
// server's API, the one that takes messages away and moves no sequence.
func (s *session) advise(m *nats.Msg) {
	if isPurge(m.Data, s.cfg.Streams) {
		wait.Signal(s.purged)
	}
}

// open makes a connection of the session's own: a session of Postgres is what
// ties snapshot, doorbell and notifications together.
func (s *session) open(ctx context.Context, role string, params map[string]string) (*pgx.Conn, error) {
	cfg := s.db.Copy()
	cfg.RuntimeParams["application_name"] = "jetbox relay " + role
	maps.Copy(cfg.RuntimeParams, sessionParams)
	maps.Copy(cfg.RuntimeParams, params)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

var (
	// All of the relay's statements take less time than it would take to compile
	// them. What a relay holds whose machine is gone, or which is frozen, would else
	// be in the next one's way for hours.
	sessionParams = map[string]string{
		"client_encoding": "UTF8", "jit": "off", "idle_in_transaction_session_timeout": "5s",
		"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "10s",
	}
	// A plan made while a child of the ring was empty would scan it sequentially
	// and stay cached when it is full.
	readerParams = map[string]string{
		"enable_seqscan": "off", "enable_bitmapscan": "off", "plan_cache_mode": "force_generic_plan",
		"max_parallel_workers_per_gather": "0", "work_mem": "32MB", // a chunk sorts in memory
		"idle_session_timeout": "5min", // while it sleeps, each writer rings its doorbell
		"tcp_user_timeout":     "60s",  // a chunk waits, half read, while a batch is published
	}
	// A ledger row that a crash takes back is published again: nothing is lost by
	// not waiting for its flush.
	ledgerParams = map[string]string{"synchronous_commit": "off"}
)

const primarySQL = `SELECT NOT pg_is_in_recovery()`

var errStandby = errors.New("this server is a standby, where a snapshot does not show what is in progress: point DATABASE_URL at the primary")

func (s *session) checkPrimary(ctx context.Context, conn *pgx.Conn) error {
	var primary bool
	if err := conn.QueryRow(ctx, primarySQL).Scan(&primary); err != nil {
		return fmt.Errorf("check primary: %w", err)
	}
	if !primary {
		return errStandby
	}
	return nil
}

// lead runs the pipeline from the ledger's position on.
func (s *session) lead(ctx context.Context) error {
	var rd *reader
	var pub *publisher
	var led *ledger
	err := s.keepingLease(ctx, func(ctx context.Context) (err error) {
		rd, pub, led, err = s.stages(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "relay leads",
		slog.String("owner", s.cfg.Owner), slog.Int64("epoch", led.epoch), slog.Any("routes", pub.routes()))
	return s.pipeline(ctx, rd, pub, led)
}

// keepingLease renews the lease while fn prepares: over a slow link that can take
// longer than a lease lasts, and two relays would take turns at it for ever.
func (s *session) keepingLease(ctx context.Context, fn func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	waiting, done := context.WithCancel(ctx)
	g.Go(func() error {
		defer done()
		return fn(ctx)
	})
	g.Go(func() error {
		for wait.Sleep(waiting, s.beatEvery()) {
			if _, err := s.lease.renew(ctx); err != nil {
				return unlessDone(ctx, err)
			}
		}
		return nil
	})
	return g.Wait()
}

func (s *session) stages(ctx context.Context) (rd *reader, pub *publisher, led *ledger, err error) {
	readConn, err := s.open(ctx, "reader", readerParams)
	if err != nil {
		return nil, nil, nil, err
	}
	ledgerConn, err := s.open(ctx, "ledger", ledgerParams)
	if err != nil {
		return nil, nil, nil, err
	}
	if s.upkeep, err = s.open(ctx, "upkeep", nil); err != nil {
		return nil, nil, nil, err
	}
	led = &ledger{conn: ledgerConn, epoch: s.lease.epoch}
	at, err := led.load(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := s.checkCluster(ctx, readConn); err != nil {
		return nil, nil, nil, err
	}
	s.healer = s.newHealer(led.generation, led.seq)
	if err := s.healer.check(ctx); err != nil {
		return nil, nil, nil, err
	}
	if pub, err = newPublisher(ctx, s.nc, s.cfg.Streams); err != nil {
		return nil, nil, nil, err
	}
	s.confirm.goesTo = pub.goesTo
	pub.generation, pub.lease, pub.pace, pub.m = led.generation, s.lease, newPace(), s.m
	rd = &reader{
		from: &table{conn: readConn}, at: at, pace: pub.pace, m: s.m, sending: s.sending, caughtUp: s.caughtUp,
		backlog: s.uncover, bell: doorbell{conn: readConn, fallback: s.cfg.FallbackPoll, m: s.m},
	}
	return rd, pub, led, nil
}

func (s *session) newHealer(generation int, seq int64) *healer {
	h := &healer{
		conn: s.upkeep, js: s.js, generation: generation, known: map[string]known{}, log: s.cfg.Logger, m: s.m,
		confirm: s.confirm,
	}
	s.confirm.goOn(s.lease.epoch, seq)
	for _, cfg := range s.cfg.Streams {
		h.streams = append(h.streams, cfg.Name)
	}
	return h
}

// release gives the lease back whatever ended the session; if it cannot, the
// lease runs out.
func (s *session) release() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.lease.release(ctx); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "lease not given back", slog.Any("error", err))
	}
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, conn := range s.conns {
		conn.Close(ctx) // best effort: the server notices a closed socket too
	}
	if s.nc != nil {
		s.nc.Close()
	}
}
