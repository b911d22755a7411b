package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// answer is how long the server may take for a call while it is not struck.
const answer = 30 * time.Second

// insist repeats a call until it goes well or the server has no more time; a
// server that another fault keeps away is no failure of this one.
func insist(ctx context.Context, call func(context.Context) error) error {
	return until(ctx, answer, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err := call(ctx)
		return err == nil, err
	})
}

// rollBackStore copies the disk, and after a while puts the copy in its place:
// what the server acknowledged in between is gone.
func rollBackStore(ctx context.Context, l *lab, f fault) error {
	s := l.servers[f.Target]
	s.older.Lock()
	defer s.older.Unlock()
	if err := s.copyStore(ctx); err != nil {
		return err
	}
	wait.Sleep(ctx, f.For)
	return s.end(context.WithoutCancel(ctx), syscall.SIGKILL, 0, s.restoreStore)
}

func deleteStream(ctx context.Context, l *lab, f fault) error {
	l.pileUp(ctx, f.For)
	return insist(ctx, func(ctx context.Context) error {
		return unlessGone(l.js.DeleteStream(ctx, stream))
	})
}

// pileUp holds the consumer back, so that there is something to lose. Without an
// answer, whatever is there is lost.
func (l *lab) pileUp(ctx context.Context, d time.Duration) {
	_, _ = l.js.PauseConsumer(ctx, stream, consumer, time.Now().Add(d+time.Second))
	wait.Sleep(ctx, d)
}

// unlessGone takes a stream that another fault has deleted for what was wanted.
func unlessGone(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// purgeStream takes every message away, and leaves the sequences as they are.
func purgeStream(ctx context.Context, l *lab, f fault) error {
	l.pileUp(ctx, f.For)
	return insist(ctx, func(ctx context.Context) error {
		s, err := l.js.Stream(ctx, stream)
		if err != nil {
			return unlessGone(err)
		}
		return unlessGone(s.Purge(ctx))
	})
}

// recreateStream deletes the stream and has it back, empty, at once.
func recreateStream(ctx context.Context, l *lab, f fault) error {
	l.pileUp(ctx, f.For)
	return insist(ctx, func(ctx context.Context) error {
		s, err := l.js.Stream(ctx, stream)
		if err != nil {
			return unlessGone(err)
		}
		if err := unlessGone(l.js.DeleteStream(ctx, stream)); err != nil {
			return err
		}
		_, err = l.js.CreateOrUpdateStream(ctx, s.CachedInfo().Config)
		return err
	})
}

// fillStream leaves no room in the stream for a while.
func fillStream(ctx context.Context, l *lab, f fault) error {
	if err := l.limit(ctx, 1); err != nil {
		return err
	}
	wait.Sleep(ctx, f.For)
	return l.limit(context.WithoutCancel(ctx), -1)
}

// makeRoom takes away all that fills the stream or the disk.
func (l *lab) makeRoom(ctx context.Context) error {
	return errors.Join(l.limit(ctx, -1), l.deleteFiller(ctx))
}

func (l *lab) limit(ctx context.Context, messages int64) error {
	return insist(ctx, func(ctx context.Context) error {
		s, err := l.js.Stream(ctx, stream)
		if err != nil {
			return unlessGone(err) // the relay makes it again, without a limit
		}
		cfg := s.CachedInfo().Config
		cfg.MaxMsgs = messages
		_, err = l.js.UpdateStream(ctx, cfg)
		return err
	})
}

// filler is a stream that takes what is left of the disk.
const filler = "FILLER"

func fillDisk(ctx context.Context, l *lab, f fault) error {
	cfg := jetstream.StreamConfig{Name: filler, Subjects: []string{"filler"}, Replicas: l.plan.Servers}
	err := insist(ctx, func(ctx context.Context) error {
		_, err := l.js.CreateOrUpdateStream(ctx, cfg)
		return err
	})
	if err != nil {
		return err
	}
	block := make([]byte, 900_000)
	full := time.Now().Add(f.For)
	for time.Now().Before(full) {
		if _, err := l.js.Publish(ctx, "filler", block, jetstream.WithRetryAttempts(0)); err != nil {
			wait.Sleep(ctx, 50*time.Millisecond) // full, or away
		}
	}
	return l.deleteFiller(context.WithoutCancel(ctx))
}

func (l *lab) deleteFiller(ctx context.Context) error {
	return insist(ctx, func(ctx context.Context) error {
		return unlessGone(l.js.DeleteStream(ctx, filler))
	})
}

func deleteConsumer(ctx context.Context, l *lab, f fault) error {
	return insist(ctx, func(ctx context.Context) error {
		err := l.js.DeleteConsumer(ctx, stream, consumer)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
		return unlessGone(err)
	})
}

// stepDown has the stream and its consumer elect other leaders.
func stepDown(ctx context.Context, l *lab, f fault) error {
	for _, subject := range []string{"$JS.API.STREAM.LEADER.STEPDOWN." + stream, "$JS.API.CONSUMER.LEADER.STEPDOWN." + stream + "." + consumer} {
		err := insist(ctx, func(ctx context.Context) error {
			_, err := l.nc.RequestMsgWithContext(ctx, nats.NewMsg(subject))
			return err
		})
		if err != nil {
			return fmt.Errorf("step down: %w", err)
		}
	}
	return nil
}

// loseQuorum kills two servers of three.
func loseQuorum(ctx context.Context, l *lab, f fault) error {
	var g errgroup.Group
	for _, name := range []string{"nats-2", "nats-3"} {
		g.Go(func() error { return l.servers[name].end(ctx, syscall.SIGKILL, f.For, nothing) })
	}
	return g.Wait()
}
