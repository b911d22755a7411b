package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// session is one connection's life: it ends with the worker, or with the
// connection or the consumer, and is then built anew.
type session struct {
	*Worker
	conn     *nats.Conn
	consumer jetstream.Consumer
	held     *held
	batches  *lanes
	calls    *lanes
	caution  *caution
	arrived  atomic.Int64    // deliveries since watch has looked
	stopping <-chan struct{} // closed: finish what has begun, begin nothing
}

// session reads and processes until ctx is done or the session breaks. It
// finishes what it has begun, for which work outlives ctx.
func (w *Worker) session(ctx, work context.Context) error {
	conn, err := w.dial()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	consumer, err := ensureConsumer(ctx, js, w.cfg)
	if err != nil {
		return err
	}
	s := &session{Worker: w, conn: conn, consumer: consumer, caution: newCaution(w.cfg.BatchSize)}
	s.held = newHeld(w.capacity())
	s.batches = newLanes(w.cfg.Concurrency, w.cfg.BatchSize)
	s.calls = newLanes(w.cfg.Calls, 1)
	w.live.Store(conn)
	defer w.live.Store(nil)
	return s.run(ctx, work)
}

// run has as many goroutines as lanes, one that keeps what they hold, and one
// that watches the consumer.
func (s *session) run(ctx, work context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	begin, halt := context.WithCancel(work)
	defer halt()
	s.stopping = begin.Done()
	var lanes, keeper sync.WaitGroup
	for range s.cfg.Concurrency {
		lanes.Go(func() { s.lane(work, s.batches) })
	}
	for range s.cfg.Calls {
		lanes.Go(func() { s.lane(work, s.calls) })
	}
	keep, done := context.WithCancel(work)
	keeper.Go(func() { s.held.keep(keep, s.cfg.AckWait/3, s.metrics.ackFailures.Inc) })
	keeper.Go(func() { stop(s.watch(ctx, s.cfg.AckWait/3)) })
	err := s.read(ctx)
	if err == nil && errors.Is(context.Cause(ctx), errSilent) {
		err = errSilent
	}
	stop(nil)
	if err == nil {
		s.finish(work)
	}
	halt()
	s.giveBack(work, append(s.batches.empty(), s.calls.empty()...), 0)
	lanes.Wait()
	done()
	keeper.Wait()
	return errors.Join(err, s.flush())
}

// finish lets the lanes go through what is in hand, so that a stop redelivers
// nothing, but not for long: other workers would begin it at once.
func (s *session) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout/10)
	defer cancel()
	s.held.wait(ctx, func() bool { return len(s.held.all) == 0 })
}

// flush sends the last acknowledgements; without a connection they are
// redeliveries that meet the inbox.
func (s *session) flush() error {
	if !s.conn.IsConnected() {
		return nil
	}
	if err := s.conn.FlushTimeout(5 * time.Second); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// read asks for as many deliveries as there is room for, and no more: what
// waited in the client's own buffer would age towards a redelivery.
func (s *session) read(ctx context.Context) error {
	for {
		n := s.held.waitForRoom(ctx)
		if n == 0 {
			return nil
		}
		if err := s.pull(ctx, n); err != nil {
			return fmt.Errorf("consume: %w", err)
		}
	}
}

// pullExpiry also bounds how long a consumer's silence goes unnoticed: Consume
// asks again after two missed heartbeats, of half of it each.
const pullExpiry = 10 * time.Second

// pull receives n deliveries. When ctx ends first, or the consumer breaks, what
// the broker has sent already is handed on too, to be given back.
func (s *session) pull(ctx context.Context, n int) error {
	broken := make(chan error, 1)
	c, err := s.consumer.Consume(func(m jetstream.Msg) { s.accept(ctx, m) },
		jetstream.StopAfter(n), jetstream.PullExpiry(pullExpiry),
		jetstream.PullMaxMessagesWithBytesLimit(n, maxPullBytes),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if breaks(err) {
				select {
				case broken <- err:
				default:
				}
			}
		}))
	if err != nil {
		return err
	}
	closed := c.Closed()
	select {
	case <-closed:
	case <-ctx.Done():
		s.awaitLull(closed)
	case err = <-broken:
	}
	c.Drain()
	select {
	case <-closed:
	case <-time.After(5 * time.Second): // the connection is away: nothing more comes
	}
	return err
}

// awaitLull waits, for 0.2 s at most, until the broker does not send anything more
// of what was asked for. What it is sending when the subscription ends it delivers
// elsewhere, and counts that as one more attempt.
func (s *session) awaitLull(closed <-chan struct{}) {
	for range 10 {
		before := s.arrived.Load()
		select {
		case <-closed:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if s.arrived.Load() == before {
			return
		}
	}
}

// breaks reports what Consume cannot mend by asking again.
func breaks(err error) bool {
	for _, end := range []error{
		jetstream.ErrConsumerDeleted, jetstream.ErrConsumerNotFound,
		jetstream.ErrBadRequest, jetstream.ErrConnectionClosed, nats.ErrConnectionClosed, nats.ErrNoResponders,
	} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// accept takes a delivery in hand and gives it to its lane.
func (s *session) accept(ctx context.Context, m jetstream.Msg) {
	d, err := newDelivery(m)
	if err != nil { // not from a stream: nothing to settle
		s.log.LogAttrs(ctx, slog.LevelWarn, "delivery without metadata ignored", slog.Any("error", err))
		return
	}
	s.arrived.Add(1)
	s.held.waitForBytes(ctx)
	s.held.add(d)
	s.metrics.arrived(d)
	if d.handler = s.handlerOf(m.Subject()); d.handler != nil && d.handler.call != nil {
		s.calls.put(d)
		return
	}
	s.batches.put(d)
}

// lane processes one batch after another.
func (s *session) lane(ctx context.Context, l *lanes) {
	for {
		batch := l.take(s.stopping)
		switch {
		case batch == nil:
			return
		case s.isStopping():
			s.giveBack(ctx, batch, 0)
		default:
			s.process(ctx, batch)
		}
		l.rest(batch)
	}
}

func (s *session) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}
