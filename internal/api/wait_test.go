package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestGet_WaitsForTheEnd(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, ask := range []struct{ path, header, applied string }{
		{"?wait=20s", "X-None: 1", ""}, {"", "Prefer: respond-async, wait=20", "wait=20"},
	} {
		id := s.post(job)
		answers := make(chan answer, 1)
		go func() { answers <- s.do("GET", "/jobs/"+id+ask.path, "", ask.header) }()
		s.process(id)
		start := time.Now()
		a := <-answers
		if a.field("status") != "done" || !strings.Contains(a.body, `"result":{"r":1}`) || a.header.Get("Preference-Applied") != ask.applied {
			t.Errorf("GET = %s %s, want done with the result", a.header, a.body)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the answer came %s after the end", took)
		}
	}
	id := s.post(job)
	if a := s.do("GET", "/jobs/"+id+"?wait=50ms", ""); a.code != 200 || a.field("status") != "queued" {
		t.Errorf("GET = %d %s, want queued when the wait is over", a.code, a.body)
	}
}

func TestGet_OfADeadJobSaysWhy(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	s.bury(id)
	a := s.do("GET", "/jobs/"+id, "")
	if a.field("status") != "dead" || a.field("reason") != "no luck" || !strings.Contains(a.body, `"error":"boom"`) {
		t.Errorf("GET = %s, want the reason and the errors", a.body)
	}
}

func TestGet_AThousandWaitersShareFewConnections(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.c.Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
	s.execute(`INSERT INTO jetbox.outbox (subject, payload) SELECT 'jobs.a', '1' FROM generate_series(1, 1000)`)
	rows, err := s.db.Query(t.Context(), `SELECT message_id::text FROM jetbox.outbox`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan answer, len(ids))
	for _, id := range ids {
		go func() { answers <- s.do("GET", "/jobs/"+id+"?wait=60s", "") }()
	}
	conns := 0
	testenv.Eventually(t, "everyone to wait", func() bool {
		conns = max(conns, s.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jetbox api'`))
		return s.api.Waiting() == 1000
	})
	s.execute(`INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
		SELECT message_id, 'worker', (now() AT TIME ZONE 'UTC')::date, subject FROM jetbox.outbox`)
	for range 1000 {
		if a := <-answers; a.field("status") != "done" {
			t.Fatalf("GET = %d %s, want done", a.code, a.body)
		}
	}
	if conns > 5 {
		t.Errorf("%d connections, want at most 5", conns)
	}
}

func TestFollow_TellsEachChange(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	answers := make(chan answer, 1)
	go func() { answers <- s.do("GET", "/jobs/"+id+"/events", "") }()
	testenv.Eventually(t, "the follower", func() bool { return s.api.Waiting() == 1 })
	s.process(id)
	a := <-answers
	if a.header.Get("Content-Type") != "text/event-stream" || strings.Count(a.body, "event: status\ndata: {") != 2 ||
		strings.Index(a.body, `"queued"`) > strings.Index(a.body, `"done"`) {
		t.Errorf("events = %s, want queued, then done", a.body)
	}
}

// Its cancellation is still on record.
func TestWait_WaitsForAJobThatWasCancelledAndScheduledAgain(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(`{"subject": "jobs.a", "payload": 1, "run_at": "2999-01-01T00:00:00Z"}`)
	s.do("DELETE", "/jobs/"+id, "")
	s.execute(`INSERT INTO jetbox.scheduled (message_id, subject, payload, run_at) VALUES ($1, 'jobs.a', '1', '2999-01-01')`, id)
	answers := make(chan answer, 1)
	go func() { answers <- s.do("GET", "/jobs/"+id+"?wait=60s", "") }()
	testenv.Eventually(t, "someone to wait", func() bool { return s.api.Waiting() == 1 })
	s.process(id)
	if a := <-answers; a.field("status") == "scheduled" {
		t.Errorf("GET = %d %s, want its end", a.code, a.body)
	}
}
