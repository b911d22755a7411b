package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestDelete_CancelsOnlyWhatHasNotEnded(t *testing.T) {
	t.Parallel()
	s := open(t)
	queued, done := s.post(job), s.post(job)
	later := s.post(`{"subject": "jobs.a", "payload": 1, "run_at": "2999-01-01T00:00:00Z"}`)
	s.process(done)
	for _, id := range []string{queued, later, later} {
		if a := s.do("DELETE", "/jobs/"+id, ""); a.code != 200 || a.field("status") != "cancelled" {
			t.Errorf("DELETE = %d %s, want cancelled", a.code, a.body)
		}
	}
	if a := s.do("DELETE", "/jobs/"+done, ""); a.code != 409 || a.field("state") != "done" || a.field("code") != "job_has_ended" {
		t.Errorf("DELETE of a done job = %d %s, want 409 and its state", a.code, a.body)
	}
}

func TestDelete_SaysThatAJobIsTooOldToRun(t *testing.T) {
	t.Parallel()
	s := open(t)
	const old = "0168e0a1-0000-7000-8000-000000000001" // of 2019
	s.execute(`INSERT INTO jetbox.outbox (message_id, subject, payload) VALUES ($1, 'jobs.a', '1')`, old)
	if a := s.do("DELETE", "/jobs/"+old, ""); a.code != 409 || a.field("code") != "job_too_old" {
		t.Errorf("DELETE = %d %s, want 409", a.code, a.body)
	}
}

func TestDead_IsListedByPage(t *testing.T) {
	t.Parallel()
	s := open(t)
	for range 5 {
		s.bury(s.post(job))
	}
	seen, path := map[string]bool{}, "/dead?limit=2&subject=jobs.a"
	for next := ""; ; {
		var page struct {
			Letters []struct{ ID, Reason string }
			Next    string
		}
		a := s.do("GET", path+next, "")
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.code != 200 {
			t.Fatalf("GET = %d %s", a.code, a.body)
		}
		for _, l := range page.Letters {
			seen[l.ID] = true
		}
		if next = "&cursor=" + page.Next; page.Next == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d letters, want 5", len(seen))
	}
}

func TestDead_IsShownWhole(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	s.bury(id)
	a := s.do("GET", "/dead/"+id, "")
	for _, want := range []string{`"id":"` + id, `"payload":1`, `"reason":"no luck"`, `"error":"boom"`, `"consumer":"worker"`} {
		if a.code != 200 || !strings.Contains(a.body, want) {
			t.Errorf("GET = %d %s, want %s", a.code, a.body, want)
		}
	}
}

func TestRedrive_RepeatedSendsOnce(t *testing.T) {
	t.Parallel()
	s := open(t)
	id := s.post(job)
	s.bury(id)
	for range 2 {
		if a := s.do("POST", "/dead/"+id+"/redrive", ""); a.code != 202 || a.field("status") != "queued" {
			t.Errorf("redrive = %d %s, want queued", a.code, a.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM jetbox.outbox WHERE message_id = $1`, id); n != 2 {
		t.Errorf("%d rows, want the first and one more", n)
	}
}

// As many letters as a request takes, which no outbox takes, hide no other.
func TestRedriveMany_GetsPastWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	for n := range 3 {
		s.execute(`INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, reason, died_at)
			VALUES (jetbox.uuidv7(), 'worker', CASE $1::int WHEN 0 THEN 'jobs.a' ELSE 'jobs. a' END, '1', 'broken', now() - ($1 + 1) * interval '1 hour')`, n)
	}
	var out struct {
		IDs     []string
		Refused []struct{ ID string }
	}
	a := s.do("POST", "/dead/redrive", `{"limit": 2}`)
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || len(out.IDs) != 0 || len(out.Refused) != 2 {
		t.Fatalf("redrive = %d %s, want two refused", a.code, a.body)
	}
	a = s.do("POST", "/dead/redrive", fmt.Sprintf(`{"limit": 2, "except": [%q, %q]}`, out.Refused[0].ID, out.Refused[1].ID))
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || len(out.IDs) != 1 {
		t.Errorf("redrive but for these = %d %s, want the good one", a.code, a.body)
	}
	for _, except := range []string{`["x"]`, `"x"`, "[" + strings.Repeat(`"`+out.Refused[0].ID+`",`, 1000) + `"` + out.Refused[1].ID + `"]`} {
		if a := s.do("POST", "/dead/redrive", `{"except": `+except+`}`); a.code != 400 && a.code != 422 {
			t.Errorf("redrive except %.20s = %d %s, want a refusal", except, a.code, a.body)
		}
	}
}

func TestRedriveMany_GoesBatchByBatch(t *testing.T) {
	t.Parallel()
	s := open(t)
	for range 5 {
		s.bury(s.post(job))
	}
	total, rounds := 0, 0
	for more := true; more; rounds++ {
		a := s.do("POST", "/dead/redrive", `{"reason": "luck", "limit": 2}`)
		var out struct {
			IDs  []string
			More bool
		}
		if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.code != 200 {
			t.Fatalf("redrive = %d %s", a.code, a.body)
		}
		total, more = total+len(out.IDs), out.More
	}
	if total != 5 || rounds != 3 {
		t.Errorf("%d letters in %d rounds, want 5 in 3", total, rounds)
	}
}
