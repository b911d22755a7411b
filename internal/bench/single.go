package bench

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// singleConns is how many transactions the yardstick has open at once.
const singleConns = 32

// startSingle is how exactly-once effects are usually written: a transaction a
// message, which first claims the message's ID.
func startSingle(ctx context.Context, l *lab, s jetstream.Stream) (func(context.Context) error, error) {
	db, err := l.pool(ctx, singleConns)
	if err != nil {
		return nil, err
	}
	consumer, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "single", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 5000,
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	return func(ctx context.Context) error {
		defer db.Close()
		return consumeSingly(ctx, db, consumer)
	}, nil
}

func consumeSingly(ctx context.Context, db *pgxpool.Pool, consumer jetstream.Consumer) error {
	g, work := errgroup.WithContext(context.WithoutCancel(ctx)) // what has begun is finished
	msgs := make(chan jetstream.Msg)
	for range singleConns {
		g.Go(func() error {
			for msg := range msgs {
				if err := processSingly(work, db, msg); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(msgs)
		return deliver(ctx, work, consumer, msgs)
	})
	return g.Wait()
}

// deliver passes messages on until ctx is done, or work is because it failed.
func deliver(ctx, work context.Context, consumer jetstream.Consumer, to chan<- jetstream.Msg) error {
	from, err := consumer.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer from.Stop()
	for {
		msg, err := from.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		select {
		case to <- msg:
		case <-work.Done():
			return nil
		}
	}
}

const claimSQL = `INSERT INTO public.processed (message_id) VALUES ($1) ON CONFLICT DO NOTHING`

func processSingly(ctx context.Context, db *pgxpool.Pool, msg jetstream.Msg) error {
	var b body
	if err := json.Unmarshal(msg.Data(), &b); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	id := msg.Headers().Get(jetstream.MsgIDHeader)
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, claimSQL, id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, insertSQL, id, b.Text)
		return err
	})
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	return msg.Ack()
}
