package outbox

import (
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// What a poll does not use it has to read all the same.
func TestPoll_AsksForFewWhereRowsAreLarge(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	from := &table{conn: conn}
	insert := func(n, bytes int) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload_bytes)
			SELECT 'jobs.x', convert_to(repeat('x', $2), 'UTF8') FROM generate_series(1, $1::int)`, n, bytes); err != nil {
			t.Fatal(err)
		}
	}
	insert(150, 100_000)
	since := genesis
	for _, tt := range []struct {
		insert   int
		overflow bool
		rows     int // that the next poll asks for
	}{{0, true, fewRows}, {10, false, 2 * fewRows}, {250, true, 4 * fewRows}, {250, false, 8 * fewRows}} {
		insert(tt.insert, 10)
		p, err := from.poll(t.Context(), since)
		if err != nil || p.overflow != tt.overflow || from.rows != tt.rows {
			t.Fatalf("poll after %d rows = overflow %t, %v, and then asks for %d, want %t and %d", tt.insert, p.overflow, err, from.rows, tt.overflow, tt.rows)
		}
		since = p.snap
	}
}
