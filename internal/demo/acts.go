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

	"github.com/jetboxhq/jetbox/internal/proxy"
)

// acts runs the faults one after the other while orders come in, then waits
// until all is done.
func (s *stage) acts(ctx context.Context) error {
	if err := s.hire(); err != nil {
		return err
	}
	if err := s.rehearse(ctx); err != nil {
		return fmt.Errorf("relay and workers did not start: %w", err)
	}
	s.Say("started   relay, worker-1 and worker-2, each a process of its own")
	g, trading := errgroup.WithContext(ctx)
	enough := make(chan struct{})
	g.Go(func() error { return s.trade(trading, enough) })
	g.Go(func() error {
		defer close(enough)
		for _, act := range []func(context.Context) error{s.killRelay, s.killBeforeAck, s.killBeforeCommit, s.restartBroker} {
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

// rehearse waits for the first effect of each worker's making or, at least, for
// the first order to come through.
func (s *stage) rehearse(ctx context.Context) error {
	if err := s.order(ctx, false); err != nil {
		return err
	}
	if err := until(ctx, 30*time.Second, func() (bool, error) { return s.positive(ctx, `SELECT count(*) FROM shop.effect`) }); err != nil {
		return err
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	if s.stream, err = js.Stream(ctx, "JOBS"); err != nil {
		return err
	}
	return s.breakRule()
}

// breakRule makes the demo fail where it was asked to: a saboteur acks each
// message on its way to the worker.
func (s *stage) breakRule() error {
	switch s.Break {
	case "":
		return nil
	case AckBeforeCommit:
		s.Say("sabotage  every message is acked before the worker has it")
		_, err := s.nc.Subscribe("_INBOX_worker.>", func(m *nats.Msg) {
			if strings.HasPrefix(m.Reply, "$JS.ACK.") {
				_ = m.Respond([]byte("+ACK"))
			}
		})
		return err
	}
	return fmt.Errorf("no rule is called %q", s.Break)
}

// recordedSQL is the stream's sequence that the ledger knows of.
const recordedSQL = `SELECT coalesce((SELECT (streams->'JOBS'->>'last_seq')::bigint FROM jetbox.relay_batch WHERE streams ? 'JOBS' ORDER BY seq DESC LIMIT 1), 0)`

// killRelay holds back what the relay tells Postgres until the stream has
// messages that the ledger has not, and kills it then: between publish and record.
func (s *stage) killRelay(ctx context.Context) error {
	err := until(ctx, 30*time.Second, func() (bool, error) {
		s.relayDB.Hold(proxy.ToServer)
		time.Sleep(100 * time.Millisecond) // for what was read before to be published
		ahead, err := s.unrecorded(ctx)
		if err != nil || ahead > 0 {
			s.result.Unrecorded = ahead
			return ahead > 0, err
		}
		s.relayDB.Release(proxy.ToServer)
		return false, nil
	})
	if err := errors.Join(err, killBetween(s.relay, s.relayDB)); err != nil {
		return fmt.Errorf("catch the relay between publish and record: %w", err)
	}
	s.Say("SIGKILL   relay, with %d messages published and not recorded", s.result.Unrecorded)
	return s.relay.Start()
}

func (s *stage) unrecorded(ctx context.Context) (int64, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("stream info: %w", err)
	}
	recorded, err := s.number(ctx, recordedSQL)
	return int64(info.State.LastSeq) - recorded, err
}

const doneByWorker1SQL = `SELECT count(*) FROM shop.effect WHERE worker = 'worker-1'`

// killBeforeAck holds back the first worker's acks until it has committed effects
// that it cannot ack, and kills it then.
func (s *stage) killBeforeAck(ctx context.Context) error {
	s.workerNATS.Hold(proxy.ToServer)
	before, err := s.number(ctx, doneByWorker1SQL)
	if err != nil {
		return err
	}
	err = until(ctx, 30*time.Second, func() (bool, error) {
		now, err := s.number(ctx, doneByWorker1SQL)
		s.result.Unacked = now - before
		return now > before, err
	})
	if err := errors.Join(err, killBetween(s.workers[0], s.workerNATS)); err != nil {
		return fmt.Errorf("catch the worker between commit and ack: %w", err)
	}
	s.Say("SIGKILL   worker-1, with at least %d effects committed and not acked", s.result.Unacked)
	return s.workers[0].Start()
}

// killBeforeCommit holds back what the second worker tells Postgres until
// messages stay with it, and kills it then: they must run again elsewhere.
func (s *stage) killBeforeCommit(ctx context.Context) error {
	consumer, err := s.stream.Consumer(ctx, "shop")
	if err != nil {
		return fmt.Errorf("look up consumer: %w", err)
	}
	s.workerDB.Hold(proxy.ToServer)
	stuck := 0
	err = until(ctx, 30*time.Second, func() (bool, error) {
		info, err := consumer.Info(ctx)
		if err != nil {
			return false, err
		}
		if stuck++; info.NumAckPending == 0 {
			stuck = 0
		}
		s.result.Uncommitted = int64(info.NumAckPending)
		return stuck == 20, nil
	})
	if err := errors.Join(err, killBetween(s.workers[1], s.workerDB)); err != nil {
		return fmt.Errorf("catch the worker between delivery and commit: %w", err)
	}
	s.Say("SIGKILL   worker-2, with messages delivered and not committed")
	return s.workers[1].Start()
}

func (s *stage) restartBroker(ctx context.Context) error {
	if err := s.broker.Stop(); err != nil {
		return err
	}
	time.Sleep(time.Second)
	if err := s.broker.Start(); err != nil {
		return err
	}
	s.result.Restarts++
	s.Say("restart   nats, away for 1 s")
	return nil
}

// openSQL counts what is still on its way.
const openSQL = `
SELECT (SELECT count(*) FROM jetbox.outbox_status WHERE state = 'pending')
	+ (SELECT count(*) FROM shop.orders o WHERE NOT EXISTS (SELECT FROM shop.effect e WHERE e.order_id = o.id))`

// settle waits until every order has its effect and the stream is empty, and no
// longer than 20 s: what is missing then is lost.
func (s *stage) settle(ctx context.Context) error {
	s.Say("settling  no more orders")
	err := until(ctx, 20*time.Second, func() (bool, error) {
		open, err := s.number(ctx, openSQL)
		if err != nil || open > 0 {
			return false, err
		}
		info, err := s.stream.Info(ctx)
		return err == nil && info.State.Msgs == 0, nil
	})
	if errors.Is(err, errTooLate) {
		return nil // the count tells what is lost
	}
	return err
}

func (s *stage) number(ctx context.Context, sql string) (n int64, err error) {
	if err := s.db.QueryRow(ctx, sql).Scan(&n); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	return n, nil
}

func (s *stage) positive(ctx context.Context, sql string) (bool, error) {
	n, err := s.number(ctx, sql)
	return n > 0, err
}

const countSQL = `
SELECT (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM shop.effect),
	(SELECT count(*) FROM shop.orders o WHERE NOT EXISTS (SELECT FROM shop.effect e WHERE e.order_id = o.id)),
	(SELECT count(*) - count(DISTINCT order_id) FROM shop.effect),
	(SELECT count(*) FROM shop.effect e WHERE NOT EXISTS (SELECT FROM shop.orders o WHERE o.id = e.order_id))`

func (s *stage) count(ctx context.Context) (Result, error) {
	r := s.result
	if err := s.db.QueryRow(ctx, countSQL).Scan(&r.Committed, &r.Effects, &r.Lost, &r.Doubled, &r.Phantom); err != nil {
		return r, fmt.Errorf("count: %w", err)
	}
	info, err := s.stream.Info(ctx)
	if err != nil {
		return r, fmt.Errorf("stream info: %w", err)
	}
	r.Published = int64(info.State.LastSeq)
	return r, nil
}

var errTooLate = errors.New("it did not happen in time")

// until asks done every 20 ms, for at most d.
func until(ctx context.Context, d time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errTooLate
}
