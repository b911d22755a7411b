package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/proxy"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// producer is an application that writes what it does, and what it knows of it.
type producer struct {
	*lab
	r    *rand.Rand
	conn *pgx.Conn
	said *said
	turn int // of kinds
}

// said is what the producers were told: a number whose commit was acknowledged
// must be in the truth.
type said struct {
	mu      sync.Mutex
	newest  map[string]int64 // by key
	commits atomic.Int64
	unknown atomic.Int64 // transactions that ended with an error
}

func (s *said) committed(key string, n int64) {
	s.commits.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest[key] = max(s.newest[key], n)
}

// produce runs transactions until ctx is done.
func (p *producer) produce(ctx context.Context) error {
	for wait.Sleep(ctx, between(p.r, 5*time.Millisecond, 60*time.Millisecond)) {
		if err := p.transact(ctx); err != nil {
			p.said.unknown.Add(1)
			p.hangUp()
		}
	}
	p.hangUp()
	return nil
}

func (p *producer) hangUp() {
	if p.conn != nil {
		_ = p.conn.PgConn().Conn().Close() // as a client that is killed: without a word
		p.conn = nil
	}
}

var errKilled = errors.New("the client is killed")

// transact is one transaction of a shape that chance decides.
func (p *producer) transact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	if err := p.dial(ctx); err != nil {
		return err
	}
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return err
	}
	key, last, err := p.write(ctx, tx)
	if err != nil {
		return err
	}
	switch act := p.r.IntN(100); {
	case act < 12:
		return tx.Rollback(ctx)
	case act < 16:
		return errKilled
	case act < 20:
		p.links[link("producers", "postgres")].LoseCommit(proxy.Direction(p.r.IntN(2)))
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	p.said.committed(key, last)
	return nil
}

func (p *producer) dial(ctx context.Context) (err error) {
	if p.conn != nil {
		return nil
	}
	p.conn, err = pgx.Connect(ctx, named(p.postgres.through(p.links[link("producers", "postgres")]), "producer"))
	return err
}

// write is what the transaction does, and returns the last number it took.
func (p *producer) write(ctx context.Context, tx pgx.Tx) (key string, last int64, err error) {
	if p.r.IntN(2) == 0 {
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
			return "", 0, err
		}
	}
	if p.r.IntN(12) == 0 {
		if err := p.regret(ctx, tx); err != nil {
			return "", 0, err
		}
	}
	key, last, err = p.enqueue(ctx, tx)
	if err == nil && p.r.IntN(25) == 0 {
		wait.Sleep(ctx, between(p.r, 0, 2*time.Second)) // others overtake
	}
	return key, last, err
}

// regret enqueues messages and rolls them back to a savepoint.
func (p *producer) regret(ctx context.Context, tx pgx.Tx) error {
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if _, _, err := p.enqueue(ctx, savepoint); err != nil {
		return err
	}
	return savepoint.Rollback(ctx)
}

func (p *producer) enqueue(ctx context.Context, tx pgx.Tx) (key string, last int64, err error) {
	key, subject, kind := fmt.Sprintf("k%d", p.r.IntN(20)), "jobs.nemesis", "plain"
	switch p.turn++; p.turn % 50 { // not by chance: every run has some of each
	case 1:
		kind = "poison"
	case 2, 3:
		kind = "flaky"
	case 4:
		key, subject, kind = "nowhere", "nowhere.nemesis", "nowhere"
	}
	rows, pad := p.size(kind)
	var first int64
	if err := tx.QueryRow(ctx, countSQL, key, rows).Scan(&first); err != nil {
		return "", 0, err
	}
	_, err = tx.Exec(ctx, enqueueSQL, key, first, rows, kind, subject, p.canary, pad)
	return key, first + rows - 1, err
}

// size is how many messages a transaction has, and how long they are. Those
// that fail are few, for each is tried many times.
func (p *producer) size(kind string) (rows int64, pad int) {
	switch n := p.r.IntN(200); {
	case kind != "plain":
		return 1, 0
	case n == 0:
		return 3000, 10
	case n == 1:
		return 2, 200_000
	case n < 20:
		return 1 + p.r.Int64N(200), p.r.IntN(200)
	}
	return 1 + p.r.Int64N(5), p.r.IntN(1000)
}

// order posts jobs to the API, each until the answer comes: the same key is the
// same job. What it began when ctx ends, it still brings to its end.
func (p *producer) order(ctx, patience context.Context) error {
	for i := 1; wait.Sleep(ctx, between(p.r, 20*time.Millisecond, 200*time.Millisecond)); i++ {
		id, err := p.post(patience, i)
		if err != nil {
			return fmt.Errorf("post job: %w", err)
		}
		err = until(patience, time.Minute, func(ctx context.Context) (bool, error) {
			_, err := p.db.Exec(ctx, orderedSQL, id, i)
			return err == nil, err
		})
		if err != nil {
			return fmt.Errorf("write truth: %w", err)
		}
	}
	return nil
}

const orderedSQL = `INSERT INTO nemesis.truth (id, key, n, kind) VALUES ($1, 'api', $2, 'plain') ON CONFLICT DO NOTHING`

func (p *producer) post(ctx context.Context, i int) (id uuid.UUID, err error) {
	body := fmt.Sprintf(`{"subject": "jobs.api", "key": "api", "payload": {"n": %d, "kind": "plain", "canary": %q}}`, i, p.canary)
	err = until(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.api+"/jobs", bytes.NewBufferString(body))
		if err != nil {
			return false, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", fmt.Sprint("order ", i))
		resp, err := p.http.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body) // cut short: the status decides
		if resp.StatusCode != http.StatusAccepted {
			return false, fmt.Errorf("%s: %.200s", resp.Status, answer)
		}
		id, err = uuid.Parse(resp.Header.Get("Location")[len("/jobs/"):])
		return err == nil, err
	})
	return id, err
}
