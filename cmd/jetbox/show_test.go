package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestShow_TellsWhenAScheduledMessageIsDue(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	var sent struct{ ID string }
	if err := json.Unmarshal([]byte(succeed(t, i.with(nil), "send", "--json", "--in", "1h", "jobs.a", "1")), &sent); err != nil {
		t.Fatal(err)
	}
	var moment struct {
		At         time.Time
		What, Text string
	}
	text := succeed(t, i.with(nil), "show", "--json", sent.ID)
	if err := json.Unmarshal([]byte(text), &moment); err != nil {
		t.Fatalf("show = %s, %v, want one moment", text, err)
	}
	if in := time.Until(moment.At); moment.What != "scheduled" || !strings.Contains(moment.Text, "jobs.a") || in < 55*time.Minute || in > time.Hour {
		t.Errorf("show = %+v, want the time and the subject", moment)
	}
	if got := succeed(t, i.with(nil), "show", sent.ID); !strings.Contains(got, " is scheduled\n") || !strings.Contains(got, "for this time on jobs.a") {
		t.Errorf("show = %s, want the time and the subject", got)
	}
}
