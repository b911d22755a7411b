package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/process"
)

// shopSQL is the application: its tables, and the handler as a SQL function.
// effect has no unique constraint on purpose: it must show a second effect.
const shopSQL = `
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int NOT NULL);
CREATE TABLE shop.effect (order_id bigint NOT NULL, worker text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION shop.fulfil(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	INSERT INTO shop.effect (order_id, worker)
	VALUES ((m.payload->>'order')::bigint, current_setting('application_name'));
	SELECT json_build_object('fulfilled', m.payload->'order')
$$;`

// configYAML keeps the AckWait short, so that a dead worker's messages are seen
// to come back within the demo.
const configYAML = `
worker:
  consumer: shop
  ack_wait: 3s
  handlers:
    - subject: jobs.order
      sql: shop.fulfil
`

func (s *stage) openShop(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, shopSQL); err != nil {
		return fmt.Errorf("open shop: %w", err)
	}
	if err := os.WriteFile(s.path("jetbox.yaml"), []byte(configYAML), 0o600); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// hire starts a relay and two workers as processes of their own. Nothing of the
// user's environment reaches them.
func (s *stage) hire() error {
	s.relay = s.hireOne("relay", via(s.postgres.URL(), s.relayDB), s.broker.URL())
	s.workers[0] = s.hireOne("worker-1", s.postgres.URL(), via(s.broker.URL(), s.workerNATS))
	s.workers[1] = s.hireOne("worker-2", via(s.postgres.URL(), s.workerDB), s.broker.URL())
	for _, p := range s.jobs {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) hireOne(name, database, broker string) *process.Process {
	verb := "worker"
	if name == "relay" {
		verb = "relay"
	}
	p := &process.Process{
		Name: name, Executable: s.Executable, Args: []string{verb}, Log: s.path(name + ".log"),
		Env: []string{
			"DATABASE_URL=" + named(database, name), "NATS_URL=" + broker, "HTTP_ADDR=127.0.0.1:0",
			"LOG_FORMAT=json", "JETBOX_CONFIG=" + s.path("jetbox.yaml"),
		},
	}
	s.jobs = append(s.jobs, p)
	return p
}

// named makes the sessions of a process recognisable: shop.effect notes whose
// session wrote it.
func named(database, name string) string {
	u, err := url.Parse(database)
	if err != nil {
		panic(err) // localenv's own URL
	}
	q := u.Query()
	q.Set("application_name", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// customers is how many orders are placed at a time.
const customers = 4

// trade places orders until enough is closed and at least Orders committed.
func (s *stage) trade(ctx context.Context, enough <-chan struct{}) error {
	var committed, rolledBack atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range customers {
		g.Go(func() error {
			for i := 1; ctx.Err() == nil; i++ {
				if isClosed(enough) && committed.Load() >= int64(s.Orders) {
					return nil
				}
				err := s.order(ctx, i%7 == 0)
				switch {
				case errors.Is(err, errChangedMind):
					rolledBack.Add(1)
				case err != nil:
					return fmt.Errorf("place order: %w", err)
				default:
					committed.Add(1)
				}
				time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
			}
			return nil
		})
	}
	err := g.Wait()
	s.result.RolledBack = rolledBack.Load()
	return err
}

var errChangedMind = errors.New("the customer changed their mind")

const (
	orderSQL   = `INSERT INTO shop.orders (amount) VALUES ($1) RETURNING id`
	enqueueSQL = `INSERT INTO jetbox.outbox (subject, key, payload) VALUES ('jobs.order', $1::bigint::text, json_build_object('order', $1::bigint))`
)

// order is the transaction that every outbox is about.
func (s *stage) order(ctx context.Context, rollBack bool) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var id int64
		if err := tx.QueryRow(ctx, orderSQL, rand.IntN(100)).Scan(&id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, enqueueSQL, id); err != nil {
			return err
		}
		if rollBack {
			return errChangedMind
		}
		return nil
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
