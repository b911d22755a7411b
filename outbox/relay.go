package outbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// Dialer opens a NATS connection that the caller closes. The relay asks for a
// new one whenever it starts over, so a connection that was closed for good is
// replaced.
type Dialer func() (*nats.Conn, error)

// RelayConfig tunes a Relay. The zero value is ready for production.
type RelayConfig struct {
	// Streams are the declared streams. The relay makes them what is declared; a
	// message whose subject none of them takes is a dead letter. Nil means one
	// work queue, JOBS, on jobs.>.
	Streams []jetstream.StreamConfig
	// VerifyStreams leaves the streams alone and only checks them, for a NATS
	// user without the right to change them.
	VerifyStreams bool
	// Retention is how long published messages stay in the outbox, from where
	// they can be published again. Zero means 24 hours.
	Retention time.Duration
	// Lease is how long a relay that died keeps others from taking over. Zero
	// means 4 seconds.
	Lease time.Duration
	// FallbackPoll is how often an idle relay polls although nobody rang, as a
	// session with jetbox.doorbell off does not. Zero means 1.5 seconds.
	FallbackPoll time.Duration
	// DrainTimeout bounds how long Run goes on after its context is done, to
	// finish the batches in flight. Zero means 10 seconds.
	DrainTimeout time.Duration
	// ConfirmConsumer is a durable consumer whose inbox, in the same database,
	// must in the end hold what was published: what it lacks although the consumer
	// has nothing left is published again, as after a purge. Empty means that
	// nobody confirms.
	ConfirmConsumer string
	// ConfirmStream is the stream of ConfirmConsumer. Empty means the first one.
	ConfirmStream string
	// ConfirmGrace is how old a message must be to be missed. Zero means 30 seconds.
	ConfirmGrace time.Duration
	// Owner names this relay in jetbox.relay_lease. Empty means host, process
	// and a random part; two relays must never share one.
	Owner string
	// Logger receives what an operator should see. Nil discards it.
	Logger *slog.Logger
	// Metrics registers the relay's metrics. Nil keeps them to the relay.
	Metrics prometheus.Registerer
}

func (c RelayConfig) withDefaults() RelayConfig {
	if len(c.Streams) == 0 {
		c.Streams = []jetstream.StreamConfig{streams.Default()}
	}
	c.Retention = cmp.Or(c.Retention, 24*time.Hour)
	c.Lease = cmp.Or(c.Lease, 4*time.Second)
	c.FallbackPoll = cmp.Or(c.FallbackPoll, 1500*time.Millisecond)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 10*time.Second)
	c.ConfirmGrace = cmp.Or(c.ConfirmGrace, 30*time.Second)
	c.ConfirmStream = cmp.Or(c.ConfirmStream, c.Streams[0].Name)
	if c.Owner == "" {
		host, _ := os.Hostname() // only a label: the random part makes it unique
		c.Owner = fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:6])
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c RelayConfig) validate() error {
	var errs []error
	if c.Lease < time.Second {
		errs = append(errs, fmt.Errorf("lease %v is under 1s: a slow round trip would lose it", c.Lease))
	}
	if c.Retention < time.Minute {
		errs = append(errs, fmt.Errorf("retention %v is under 1m", c.Retention))
	}
	if c.FallbackPoll < 0 || c.FallbackPoll > time.Minute {
		errs = append(errs, fmt.Errorf("FallbackPoll %v is not within a minute", c.FallbackPoll))
	}
	if c.ConfirmGrace < 0 {
		errs = append(errs, fmt.Errorf("ConfirmGrace %v is negative", c.ConfirmGrace))
	}
	if c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("DrainTimeout %v is negative", c.DrainTimeout))
	}
	return errors.Join(errs...)
}

// Relay publishes what the outbox of one database holds.
type Relay struct {
	db    *pgx.ConnConfig
	dial  Dialer
	cfg   RelayConfig
	m     *metrics
	state atomic.Pointer[state]

	// Of whichever session runs:
	covered coverage
	confirm *confirmation
	turnAt  time.Time // when the ring is looked at next
}

// state is what keeps the relay from its work; nil is nothing.
type state struct{ err error }

var errStopped = errors.New("outbox: relay has stopped")

// ErrStarting is what Ready returns before the first connection.
var ErrStarting = errors.New("outbox: relay is starting")

// NewRelay returns a relay of the database that db describes, which must be the
// primary and reached without a pooler. Several may run: one leads, the others
// stand by.
func NewRelay(db *pgx.ConnConfig, dial Dialer, cfg RelayConfig) (*Relay, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("outbox: relay config: %w", err)
	}
	r := &Relay{db: db, dial: dial, cfg: cfg, m: newMetrics()}
	if err := r.m.register(cfg.Metrics); err != nil {
		return nil, err
	}
	r.confirm = &confirmation{stream: cfg.ConfirmStream, consumer: cfg.ConfirmConsumer}
	r.state.Store(&state{err: ErrStarting})
	return r, nil
}

// Run publishes until ctx is done, then finishes the batches in flight and
// returns nil. While Postgres or NATS is away it retries with growing pauses of
// at most 5 seconds; no message is given up for that. It returns an error only
// when carrying on cannot help.
func (r *Relay) Run(ctx context.Context) (end error) {
	defer func() { r.state.Store(&state{err: cmp.Or(end, errStopped)}) }()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	r.turnAt = time.Now().Add(turnEvery)
	for ran := false; ; {
		began := time.Now()
		err := r.session(ctx)
		healthy := r.Ready(ctx) == nil
		ran = ran || healthy
		// A stream that was right and is wrong now is somebody's work in progress:
		// only at start does it end the relay.
		fatal := errors.Is(err, errRestored) || (errors.Is(err, streams.ErrConfig) && !ran)
		if fatal || ctx.Err() != nil {
			return unlessDone(ctx, fmt.Errorf("outbox: %w", err))
		}
		if errors.Is(err, errRewound) || errors.Is(err, errPaused) {
			continue // the next session starts where the loss was, or rests
		}
		r.note(ctx, err)
		if healthy || time.Since(began) > pause.MaxInterval {
			pause.Reset()
		}
		if !wait.Sleep(ctx, pause.NextBackOff()) {
			return nil
		}
	}
}

// Ready returns nil while the relay publishes, or stands by for the one that
// does, and otherwise what keeps it from that.
func (r *Relay) Ready(context.Context) error {
	return r.state.Load().err
}

// healthy notes that this relay is caught up, has recorded a batch, or stands by.
func (r *Relay) healthy() {
	if r.state.Load().err != nil {
		r.state.Store(&state{})
	}
}

// note logs a change for the worse once, not each retry.
func (r *Relay) note(ctx context.Context, err error) {
	level := slog.LevelWarn
	if before := r.state.Load().err; before != nil && before.Error() == err.Error() {
		level = slog.LevelDebug
	}
	r.state.Store(&state{err: err})
	r.cfg.Logger.LogAttrs(ctx, level, "relay interrupted, will start over",
		slog.String("class", classify(err).String()), slog.Any("error", err))
}

// unlessDone returns err, or nil once ctx is done: then err only says how work
// was broken off.
func unlessDone(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}
