package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// unsettledSQL counts what was committed and has neither an effect nor a dead
// letter.
const unsettledSQL = `
SELECT count(*) FROM nemesis.truth t
WHERE NOT EXISTS (SELECT FROM nemesis.effect e WHERE e.id = t.id)
	AND NOT EXISTS (SELECT FROM jetbox.dead_letter d WHERE d.message_id = t.id)`

const pendingSQL = `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'pending'`

// drained reports whether nothing is on its way any more.
func (l *lab) drained(ctx context.Context) (bool, error) {
	for _, sql := range []string{unsettledSQL, pendingSQL} {
		if n, err := l.count(ctx, sql); err != nil || n > 0 {
			return false, errors.Join(err, fmt.Errorf("%d messages are on their way", n))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := l.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return false, fmt.Errorf("consumer: %w", err)
	}
	if info := c.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
		return false, fmt.Errorf("the consumer has %d to deliver and %d to be settled", info.NumPending, info.NumAckPending)
	}
	return true, nil
}

// invariant is a query that counts violations.
type invariant struct{ name, sql string }

const (
	lost     = "lost"
	doubled  = "doubled"
	inverted = "inverted"
)

// invariants hold at the end of every run.
var invariants = []invariant{
	{lost, `SELECT count(*) FROM nemesis.truth t
		WHERE kind IN ('plain', 'flaky') AND NOT EXISTS (SELECT FROM nemesis.effect e WHERE e.id = t.id)`},
	{doubled, `SELECT coalesce(sum(n - 1), 0)::bigint FROM (SELECT count(*) AS n FROM nemesis.effect GROUP BY id) e`},
	{"effects of what was rolled back", `SELECT count(*) FROM nemesis.effect e
		WHERE NOT EXISTS (SELECT FROM nemesis.truth t WHERE t.id = e.id)`},
	{"effects of what cannot have any", `SELECT count(*) FROM nemesis.effect e JOIN nemesis.truth t USING (id)
		WHERE t.kind IN ('poison', 'nowhere')`},
	{"dead letters nobody wants", `SELECT count(*) FROM jetbox.dead_letter d LEFT JOIN nemesis.truth t ON t.id = d.message_id
		WHERE t.kind IS DISTINCT FROM CASE d.consumer WHEN '$relay' THEN 'nowhere' ELSE 'poison' END`},
	{"dead letters missing", `SELECT count(*) FROM nemesis.truth t
		WHERE kind IN ('poison', 'nowhere') AND NOT EXISTS (SELECT FROM jetbox.dead_letter d WHERE d.message_id = t.id)`},
	{"rows of the outbox without their transaction", `SELECT count(*) FROM jetbox.outbox o
		WHERE NOT EXISTS (SELECT FROM nemesis.truth t WHERE t.id = o.message_id)`},
	{"transactions without their rows in the outbox", `SELECT count(*) FROM nemesis.truth t
		WHERE NOT EXISTS (SELECT FROM jetbox.outbox o WHERE o.message_id = t.id)`},
	{"effects that the inbox does not know", `SELECT count(*) FROM nemesis.effect e
		WHERE NOT EXISTS (SELECT FROM jetbox.inbox i WHERE i.message_id = e.id)`},
	{"ledger rows of a relay that was replaced", `SELECT count(*) FROM (
		SELECT epoch, lag(epoch) OVER (ORDER BY seq) AS before FROM jetbox.relay_batch) b WHERE epoch < before`},
	{"ledger numbers given twice", `SELECT count(*) - count(DISTINCT seq) FROM jetbox.relay_batch`},
	{"ledger positions that go back", `SELECT count(*) FROM (
		SELECT rewound_to, pg_snapshot_xmax(snap) AS at, max(pg_snapshot_xmax(snap)) OVER (PARTITION BY generation ORDER BY seq) AS best
		FROM jetbox.relay_batch) b WHERE at < best AND rewound_to IS NULL`},
	{"sessions idle in a transaction", `SELECT count(*) FROM pg_stat_activity
		WHERE state LIKE 'idle in transaction%' AND now() - state_change > interval '10 seconds'`},
}

// check counts every violation by the name of its invariant.
func (l *lab) check(ctx context.Context, s *said, found map[string]int64) (err error) {
	for _, i := range invariants {
		n, err := l.count(ctx, i.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", i.name, err)
		}
		found[i.name] = n
	}
	if found["acknowledged commits that are gone"], err = l.vanished(ctx, s); err != nil {
		return err
	}
	return l.checkStream(ctx, found)
}

const newestSQL = `SELECT coalesce(max(n), 0) FROM nemesis.truth WHERE key = $1`

func (l *lab) vanished(ctx context.Context, s *said) (gone int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.newest {
		newest, err := l.count(ctx, newestSQL, key)
		if err != nil {
			return 0, err
		}
		gone += max(0, n-newest)
	}
	return gone, nil
}

// connectedSQL counts the sessions that the daemons have left.
const connectedSQL = `
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND (application_name LIKE 'jetbox %' OR application_name = ANY ($1))`

// leaks counts, after the daemons have ended, what they left, and what they
// said and should not have.
func (l *lab) leaks(ctx context.Context) (map[string]int64, error) {
	found := map[string]int64{}
	_ = until(ctx, 10*time.Second, func(ctx context.Context) (bool, error) { // in vain: they are counted
		n, err := l.count(ctx, connectedSQL, daemonNames)
		found["sessions left"] = n
		return err == nil && n == 0, err
	})
	return found, l.readLogs(found)
}

// readLogs counts, by file, what no log may hold.
func (l *lab) readLogs(found map[string]int64) error {
	secrets := map[string]string{"payload": l.canary, "panic": "panic:", "data race": "DATA RACE"}
	if password, err := os.ReadFile(l.path("postgres.password")); err == nil {
		secrets["password"] = strings.TrimSpace(string(password))
	}
	logs, err := filepath.Glob(l.path("*.log"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, secret := range secrets {
			found[name+" in "+filepath.Base(path)] = int64(strings.Count(string(text), secret))
		}
	}
	return nil
}
