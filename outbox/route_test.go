package outbox

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

func TestPlainRoute_NeverHasTwoMessagesOfOneKeyInFlight(t *testing.T) {
	t.Parallel()
	var msgs []*nats.Msg
	for _, key := range []string{"a", "b", "", "", "c", "b", "d"} {
		m := &nats.Msg{Header: nats.Header{}}
		if key != "" {
			m.Header.Set("Jetbox-Key", key)
		}
		msgs = append(msgs, m)
	}
	if got := independent(msgs); got != 5 {
		t.Errorf("%d messages together, want 5: the sixth has the second's key", got)
	}
	if got := independent(msgs[5:]); got != 2 {
		t.Errorf("%d messages together, want 2", got)
	}
}

// timed is a route that only takes time.
type timed struct {
	name string
	each time.Duration
	sent int
}

func (r *timed) String() string { return r.name }

func (r *timed) publish(_ context.Context, msgs []*nats.Msg) (int, uint64, error) {
	time.Sleep(r.each * time.Duration(len(msgs)))
	r.sent += len(msgs)
	return len(msgs), 0, nil
}

func TestAutoRoute_SettlesOnTheCheaperRouteAndNoticesAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fast, atomic := &timed{name: "fast", each: 7 * time.Microsecond}, &timed{name: "atomic", each: 15 * time.Microsecond}
		a := &autoRoute{bulk: []*timedRoute{{route: fast}, {route: atomic}}}
		publish := func(messages int) {
			for msgs := make([]*nats.Msg, messages); len(msgs) > 0; {
				n, _, err := a.publish(t.Context(), msgs[:min(len(msgs), batchRows)])
				if err != nil {
					t.Fatal(err)
				}
				msgs = msgs[n:]
			}
		}
		publish(1_000_000)
		if a.String() != "fast" || atomic.sent > 0 { // it begins no sooner than fast has stored a trial's messages
			t.Errorf("%v is in use and atomic got %d of a million messages", a, atomic.sent)
		}
		fast.each = 300 * time.Microsecond // the server now syncs each message
		fast.sent = 0
		publish(1_000_000)
		if a.String() != "atomic" || fast.sent > 20*batchRows {
			t.Errorf("%v is in use and fast got %d of a million messages", a, fast.sent)
		}
	})
}
