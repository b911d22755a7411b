package inbox_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/inbox"
)

// processSQL records n messages that were processed some seconds ago, with IDs
// of some days ago.
const processSQL = `
INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result, processed_at)
SELECT CASE WHEN $2 THEN gen_random_uuid() ELSE jetbox.uuidv7_at(now() - $3 * interval '1 day') END, 'worker',
	CASE WHEN $2 THEN '-infinity' ELSE (now() - $3 * interval '1 day')::date END,
	'jobs.a', to_json(n), clock_timestamp() - $4 * interval '1 second'
FROM generate_series(1, $1::int) n`

// A backlog is worked off days after its IDs were made, and counts as much.
func TestReadRecent_FindsWhatWasJustProcessed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(processSQL, 40_000, false, 0, 3600) // many pages
	e.exec(processSQL, 60, false, 0, 10)
	e.exec(processSQL, 30, false, 8, 5)
	e.exec(processSQL, 30, true, 0, 5)
	conn, err := e.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for limit, want := range map[int]int{1000: 120, 7: 7} {
		list, err := inbox.ReadRecent(t.Context(), conn.Conn(), time.Now().Add(-time.Minute), limit)
		if err != nil || len(list) != want || list[0].ProcessedAt.Before(list[want-1].ProcessedAt) || list[0].Result == nil {
			t.Errorf("ReadRecent = %d rows, %v, want %d, the latest first", len(list), err, want)
		}
	}
	s, err := inbox.ReadStatus(t.Context(), conn.Conn())
	if err != nil || len(s.Consumers) != 1 || s.Consumers[0].PerSecond != 2 {
		t.Errorf("ReadStatus = %+v, %v, want 2 a second", s, err)
	}
}

// Where a burst fills more pages than are read, the rate is that of what they cover.
func TestReadStatus_TellsTheRateOfABurst(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(processSQL, 200_000, false, 0, 10)
	conn, err := e.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	s, err := inbox.ReadStatus(t.Context(), conn.Conn())
	if err != nil || s.Consumers[0].PerSecond < 200_000/60 {
		t.Errorf("ReadStatus = %+v, %v, want more than a minute's mean of %d", s, err, 200_000/60)
	}
	var plan string
	explain := `EXPLAIN SELECT FROM jetbox.inbox WHERE day >= '-infinity' AND day < '1970-01-01' AND ctid >= '(7,0)'`
	if err := conn.QueryRow(t.Context(), explain).Scan(&plan); err != nil {
		t.Fatal(err)
	}
	if want := "Tid Range Scan on inbox_foreign"; !strings.HasPrefix(plan, want) {
		t.Errorf("plan = %s, want %s", plan, want)
	}
}
