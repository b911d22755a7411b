package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// keys is how many ordering keys the writers compete for.
const keys = 40

// writer is one application of DESIGN §4.1's stress test: transactions that take
// their xid early, stay open, roll savepoints back, insert inside subtransactions,
// abort, or commit in two phases. Each enqueues, under its key's row lock, the
// next number of that key: so numbers are in commit order, without gaps.
type writer struct {
	l    *lab
	id   int
	hold time.Duration // how long a transaction may stay open
	rand *rand.Rand
}

var errAbort = errors.New("abort")

func (w *writer) run(ctx context.Context, until time.Time) error {
	conn, err := w.l.db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for i := 0; time.Now().Before(until); i++ {
		err := w.transact(ctx, conn.Conn(), fmt.Sprintf("w%d-%d", w.id, i))
		if err != nil && !errors.Is(err, errAbort) {
			return fmt.Errorf("writer %d: %w", w.id, err)
		}
		time.Sleep(time.Duration(w.rand.IntN(8)) * time.Millisecond)
	}
	return nil
}

func (w *writer) transact(ctx context.Context, conn *pgx.Conn, gid string) error {
	if w.rand.Float64() < 0.1 {
		return w.twoPhase(ctx, conn, gid)
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if w.rand.Float64() < 0.3 {
			if _, err := tx.Exec(ctx, `SELECT pg_current_xact_id()`); err != nil {
				return err
			}
			w.pause()
		}
		if err := w.enqueue(ctx, tx); err != nil {
			return err
		}
		if w.rand.Float64() < 0.3 {
			w.pause()
		}
		if w.rand.Float64() < 0.1 {
			return errAbort
		}
		return nil
	})
}

func (w *writer) pause() { time.Sleep(time.Duration(w.rand.Int64N(int64(w.hold)))) }

const nextSQL = `UPDATE acct SET v = v + 1 WHERE k = $1 RETURNING v`

const insertSQL = `INSERT INTO jetbox.outbox (subject, key, payload) VALUES ($1, $2, json_build_object('k', $2::text, 'v', $3::int))`

func (w *writer) enqueue(ctx context.Context, tx pgx.Tx) error {
	k, v := w.rand.IntN(keys), 0
	if err := tx.QueryRow(ctx, nextSQL, k).Scan(&v); err != nil {
		return err
	}
	insert := func(tx pgx.Tx, v int, end error) error {
		_, err := tx.Exec(ctx, insertSQL, w.l.prefix+".x", fmt.Sprint(k), v)
		return errors.Join(err, end)
	}
	if w.rand.Float64() < 0.2 { // a savepoint that is rolled back
		err := pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error { return insert(sub, -1, errAbort) })
		if !errors.Is(err, errAbort) {
			return err
		}
	}
	if w.rand.Float64() < 0.3 { // a subtransaction has an xid of its own
		return pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error { return insert(sub, v, nil) })
	}
	return insert(tx, v, nil)
}

// twoPhase leaves a prepared transaction, which outlives its session, open for
// a while.
func (w *writer) twoPhase(ctx context.Context, conn *pgx.Conn, gid string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // closed already, when all went well
	if _, err := tx.Exec(ctx, `SET LOCAL jetbox.doorbell = off`); err != nil {
		return err
	}
	if err := w.enqueue(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(`PREPARE TRANSACTION '%s'`, gid)); err != nil {
		return err
	}
	w.pause()
	_, err = conn.Exec(ctx, fmt.Sprintf(`%s PREPARED '%s'`, [...]string{"COMMIT", "COMMIT", "ROLLBACK"}[w.rand.IntN(3)], gid))
	return err
}

func TestRelay_MissesDoublesAndInvertsNothingUnderStress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`CREATE TABLE acct (k int PRIMARY KEY, v int NOT NULL DEFAULT 0)`)
	l.exec(`INSERT INTO acct (k) SELECT generate_series(0, $1::int - 1)`, keys)
	l.relay()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g, ctx := errgroup.WithContext(t.Context())
	until := time.Now().Add(5 * time.Second)
	for i, hold := range []time.Duration{5, 5, 5, 20, 20, 50, 200, 1500, 3000} {
		w := &writer{l: l, id: i, hold: hold * time.Millisecond, rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		g.Go(func() error { return w.run(ctx, until) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	l.waitCaughtUp()
	l.verdict()
}

// verdict compares the stream with what committed: per key the numbers 1, 2, 3, …
func (l *lab) verdict() {
	l.t.Helper()
	missed, doubled, inverted := 0, 0, 0
	next := map[string]int{}
	seen := map[string]bool{}
	for _, m := range l.stored() {
		var body struct {
			K string
			V int
		}
		if err := json.Unmarshal(m.Data(), &body); err != nil {
			l.t.Fatal(err)
		}
		id := fmt.Sprint(body)
		if seen[id] || body.V < 0 {
			doubled++
			continue
		}
		seen[id] = true
		if next[body.K]++; body.V != next[body.K] {
			inverted++
		}
	}
	total := ask[int](l, `SELECT sum(v) FROM acct`)
	for k, n := range next {
		missed += ask[int](l, `SELECT v FROM acct WHERE k = $1::text::int`, k) - n
	}
	l.t.Logf("committed %d, polls %d", total, ask[int](l, `SELECT count(*) FROM jetbox.relay_batch`))
	if len(seen) != total || missed != 0 || doubled != 0 || inverted != 0 {
		l.t.Errorf("committed %d, stored %d: missed %d, doubled %d, inverted %d", total, len(seen), missed, doubled, inverted)
	}
	if total < 200 {
		l.t.Errorf("only %d messages committed: not much of a stress", total)
	}
}
