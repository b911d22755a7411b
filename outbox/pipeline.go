package outbox

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// pipeline overlaps reading, preparing, publishing and recording, each in order.
// When ctx is done the reader stops and the rest finishes what is in flight.
func (s *session) pipeline(ctx context.Context, rd *reader, pub *publisher, led *ledger) error {
	work, cancel := wait.Drain(ctx, s.cfg.DrainTimeout)
	defer cancel()
	g, work := errgroup.WithContext(work)
	reading, stopReading := context.WithCancel(work)
	defer context.AfterFunc(ctx, stopReading)()
	defer stopReading()
	beating, stopBeating := context.WithCancel(work)
	defer stopBeating()

	read, prepared, published := make(chan *batch, 1), make(chan *batch), make(chan *batch, 2)
	due := make(chan struct{}, 1)
	rd.out = read
	g.Go(func() error {
		defer close(read)
		return rd.run(reading)
	})
	g.Go(func() error {
		defer close(prepared)
		return pass(work, read, prepared, func(b *batch) error { pub.prepare(b); return nil })
	})
	g.Go(func() error {
		defer close(published)
		return pass(work, prepared, published, func(b *batch) error { return pub.publish(work, b) })
	})
	g.Go(func() error {
		defer stopBeating()
		return s.record(work, led, published)
	})
	var paused atomic.Bool
	g.Go(func() error { return s.beat(beating, due, func() { paused.Store(true); stopReading() }) })
	g.Go(func() error { return s.watch(beating) })
	g.Go(func() error { return s.maintain(reading, due) })
	if err := g.Wait(); err != nil || !paused.Load() {
		return err
	}
	return errPaused
}

// pass does step to each batch, in order, and passes it on.
func pass(ctx context.Context, in <-chan *batch, out chan<- *batch, step func(*batch) error) error {
	for b := range in {
		if err := step(b); err != nil {
			return err
		}
		select {
		case out <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// beatEvery leaves room for two renewals that fail.
func (s *session) beatEvery() time.Duration { return min(s.cfg.Lease/3, time.Second) }

// beat renews the lease, and passes on that a scheduled message is due, or that
// the relay is to pause.
func (s *session) beat(ctx context.Context, due chan<- struct{}, pause func()) error {
	for wait.Sleep(ctx, s.beatEvery()) {
		p, err := s.lease.renew(ctx)
		if err != nil {
			return unlessDone(ctx, err)
		}
		if p.paused {
			pause()
		}
		if p.due {
			wait.Signal(due)
		}
	}
	return nil
}

var errDisconnected = errors.New("the connection to nats was lost")

// watch ends the session as soon as its connection is lost, even if the client
// is about to get it back: acks of what was in flight will not come.
func (s *session) watch(ctx context.Context) error {
	lost := s.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer s.nc.RemoveStatusListener(lost)
	if !s.nc.IsConnected() {
		return errDisconnected
	}
	select {
	case <-lost:
		return errDisconnected
	case <-ctx.Done():
		return nil
	}
}
