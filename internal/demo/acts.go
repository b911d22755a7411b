package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

// acts runs the faults one after the other while orders come in, then waits
// until all is done.
func (s *stage) acts(ctx context.Context) error {
	if err := s.hire(); err != nil {
		return err
	}
	if err := s.rehearse(ctx); err != nil {
		return fmt.Errorf("start relay and workers: %w", err)
	}
	s.Say("started   relay, worker-1 and worker-2, each a process of its own")
	if err := s.breakRule(); err != nil {
		return err
	}
	g, trading := errgroup.WithContext(ctx)
	enough := make(chan struct{})
	g.Go(func() error { return s.trade(trading, enough) })
	g.Go(func() error {
		defer close(enough)
		for _, act := range []func(context.Context) error{s.killRelay, s.restartBroker, s.killBeforeAck, s.killBeforeCommit} {
			if err := act(trading); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return s.settle(ctx)
}

const effectsSQL = `SELECT count(*) FROM shop.effect`

// rehearse waits until the first order has come through.
func (s *stage) rehearse(ctx context.Context) error {
	if err := s.order(ctx, false); err != nil {
		return err
	}
	err := until(ctx, patience, func() (bool, error) {
		n, err := s.number(ctx, effectsSQL)
		return n > 0, err
	})
	if err != nil {
		return err
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	s.stream, err = js.Stream(ctx, "JOBS")
	return err
}

// breakRule makes the demo fail where it was asked to: a saboteur acks each
// message on its way to the worker.
func (s *stage) breakRule() error {
	if s.Break == "" {
		return nil
	}
	s.Say("sabotage  every message is acked before the worker has it")
	_, err := s.nc.Subscribe("_INBOX_worker.>", func(m *nats.Msg) {
		if strings.HasPrefix(m.Reply, "$JS.ACK.") {
			_ = m.Respond([]byte("+ACK"))
		}
	})
	return err
}

// backlogSQL tells how far the newest effect is behind the newest order.
const backlogSQL = `SELECT (SELECT max(id) FROM shop.orders) - (SELECT max(order_id) FROM shop.effect)`

// flow waits until new orders come through again, whatever the last fault left.
func (s *stage) flow(ctx context.Context) error {
	err := until(ctx, patience, func() (bool, error) {
		n, err := s.number(ctx, backlogSQL)
		return n < 50, err
	})
	if err != nil {
		return fmt.Errorf("orders do not come through: %w", err)
	}
	return nil
}

// catch holds back what p says through link until attempt finds p between two
// steps, and kills p there: what it would have said next is lost with it. When
// an attempt misses, p may go on until things flow again.
func (s *stage) catch(ctx context.Context, p *process.Process, link *proxy.Proxy, attempt func() error) error {
	defer link.Release(proxy.ToServer)
	err := until(ctx, patience, func() (bool, error) {
		if err := s.flow(ctx); err != nil {
			return false, err
		}
		link.Hold(proxy.ToServer)
		if err := pause(ctx, 100*time.Millisecond); err != nil { // for what has passed to arrive
			return false, err
		}
		err := attempt()
		if errors.Is(err, errMissed) {
			link.Release(proxy.ToServer)
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	err = p.Kill()
	link.Cut()
	return err
}

const sentSQL = `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'sent'`

// killRelay kills the relay when the stream has messages that Postgres has not
// been told of.
func (s *stage) killRelay(ctx context.Context) error {
	err := s.catch(ctx, s.relay, s.relayDB, func() error {
		info, err := s.stream.Info(ctx)
		if err != nil {
			return fmt.Errorf("stream info: %w", err)
		}
		recorded, err := s.number(ctx, sentSQL)
		s.result.Unrecorded = int64(info.State.LastSeq) - recorded
		if err == nil && s.result.Unrecorded == 0 {
			return errMissed // it was idle, and stays so while it is held
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("catch the relay between publish and record: %w", err)
	}
	s.Say("SIGKILL   relay, with %d messages published and not recorded", s.result.Unrecorded)
	return s.relay.Start()
}

func (s *stage) restartBroker(ctx context.Context) error {
	if err := s.broker.Stop(); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := s.broker.Start(); err != nil {
		return err
	}
	s.result.Restarts++
	s.Say("restart   nats, away for 1 s")
	return nil
}

const doneByWorker1SQL = `SELECT count(*) FROM shop.effect WHERE worker = 'worker-1'`

// killBeforeAck kills the first worker when it has committed effects that it
// could not ack.
func (s *stage) killBeforeAck(ctx context.Context) error {
	err := s.catch(ctx, s.workers[0], s.workerNATS, func() error {
		before, err := s.number(ctx, doneByWorker1SQL)
		if err != nil {
			return err
		}
		return until(ctx, grip, func() (bool, error) {
			now, err := s.number(ctx, doneByWorker1SQL)
			s.result.Unacked = now - before
			return now > before, err
		})
	})
	if err != nil {
		return fmt.Errorf("catch the worker between commit and ack: %w", err)
	}
	s.Say("SIGKILL   worker-1, with at least %d effects committed and not acked", s.result.Unacked)
	return s.workers[0].Start()
}

const newestEffectSQL = `SELECT max(order_id) FROM shop.effect`

// overtakenSQL counts the orders since $1 without an effect that a hundred
// later ones have overtaken: the other worker has done those.
const overtakenSQL = `
SELECT count(*) FROM shop.orders o
WHERE o.id > $1 AND o.id < (SELECT max(order_id) - 100 FROM shop.effect)
	AND NOT EXISTS (SELECT FROM shop.effect e WHERE e.order_id = o.id)`

// killBeforeCommit kills the second worker when it has messages that it could
// not commit: they must run again elsewhere.
func (s *stage) killBeforeCommit(ctx context.Context) error {
	err := s.catch(ctx, s.workers[1], s.workerDB, func() error {
		newest, err := s.number(ctx, newestEffectSQL)
		if err != nil {
			return err
		}
		return until(ctx, grip, func() (bool, error) {
			n, err := s.number(ctx, overtakenSQL, newest)
			s.result.Uncommitted = n
			return n > 0, err
		})
	})
	if err != nil {
		return fmt.Errorf("catch the worker between delivery and commit: %w", err)
	}
	s.Say("SIGKILL   worker-2, with at least %d messages delivered and not committed", s.result.Uncommitted)
	return s.workers[1].Start()
}
