package outbox

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// Each error that a server can be made to give comes from a real one.
func TestClassify_KnowsEveryErrorThatCanBeProvoked(t *testing.T) {
	t.Parallel()
	batches := func(c *jetstream.StreamConfig) { c.AllowAtomicPublish, c.AllowBatchPublish = true, true }
	header := func(name, value string) func(*nats.Msg) { return func(m *nats.Msg) { m.Header.Set(name, value) } }
	none := func(*jetstream.StreamConfig) {}
	for name, tt := range map[string]struct {
		stream func(*jetstream.StreamConfig)
		route  string
		change func(*nats.Msg) // the second of three messages
		want   class
		stored int
	}{
		"larger than max_msg_size":       {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 }, "plain", func(m *nats.Msg) { m.Data = make([]byte, 200) }, badRow, 1},
		"headers over 64 KiB":            {none, "plain", header("X", strings.Repeat("x", 70_000)), badRow, 1},
		"a subject with a space":         {none, "plain", func(m *nats.Msg) { m.Subject += " y" }, badRow, 1},
		"larger than max_payload":        {none, "plain", func(m *nats.Msg) { m.Data = make([]byte, 2<<20) }, badRow, 1},
		"a TTL without leave":            {none, "plain", header("Nats-TTL", "1s"), badRow, 1},
		"another expected stream":        {none, "plain", header("Nats-Expected-Stream", "OTHER"), badRow, 1},
		"a rollup without leave":         {none, "plain", header("Nats-Rollup", "all"), badRow, 1},
		"a schedule without leave":       {none, "plain", header("Nats-Schedule", "@at 2030-01-01T00:00:00Z"), badRow, 1},
		"a full stream":                  {func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew }, "plain", nil, backPressure, 1},
		"another expected sequence":      {none, "plain", header("Nats-Expected-Last-Sequence", "99"), fenced, 1},
		"no stream":                      {none, "plain", func(m *nats.Msg) { m.Subject = "nobody.listens" }, unknown, 1},
		"atomic batches switched off":    {none, "atomic", nil, configuration, 0},
		"a duplicate in an atomic batch": {batches, "atomic", func(m *nats.Msg) { m.Header.Set("Nats-Msg-Id", "0") }, wholeBatch, 0},
		"a bad row in an atomic batch":   {batches, "atomic", header("Nats-TTL", "1s"), badRow, 0},
		"fast batches switched off":      {none, "fast", nil, configuration, 0},
		"a bad row in a fast batch":      {batches, "fast", header("Nats-TTL", "1s"), badRow, 1},
		"a full stream in a fast batch": {func(c *jetstream.StreamConfig) {
			batches(c)
			c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew
		}, "fast", nil, backPressure, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := jetstream.StreamConfig{}
			tt.stream(&cfg)
			cfg = testenv.Stream(t, cfg)
			msgs := messages(strings.TrimSuffix(cfg.Subjects[0], ">")+"x", 3)
			if tt.change != nil {
				tt.change(msgs[1])
			}
			stored, _, err := publishAll(t.Context(), newRoute(t, tt.route), msgs)
			if got := classify(err); err == nil || got != tt.want || stored != tt.stored {
				t.Errorf("stored %d, class %v (%v), want %d and %v", stored, got, err, tt.stored, tt.want)
			}
		})
	}
}

// publishAll goes on where a call ends.
func publishAll(ctx context.Context, r route, msgs []*nats.Msg) (stored int, seq uint64, err error) {
	for stored < len(msgs) && err == nil {
		var n int
		n, seq, err = r.publish(ctx, msgs[stored:])
		stored += n
	}
	return stored, seq, err
}

// messages have numbers for IDs, and one key, so that the plain route sends
// one after the other.
func messages(subject string, n int) []*nats.Msg {
	msgs := make([]*nats.Msg, n)
	for i := range msgs {
		msgs[i] = &nats.Msg{Subject: subject, Data: []byte("{}"), Header: nats.Header{
			"Nats-Msg-Id": {strconv.Itoa(i)}, "Jetbox-Key": {"k"},
		}}
	}
	return msgs
}

func newRoute(t *testing.T, name string) route {
	t.Helper()
	nc := testenv.NATS(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return routeOn(t, nc, js, name)
}

func routeOn(t testing.TB, nc *nats.Conn, js jetstream.JetStream, name string) route {
	t.Helper()
	switch name {
	case "plain":
		return plainRoute{js: js}
	case "atomic":
		return atomicRoute{js}
	}
	fast, err := newFastRoute(nc)
	if err != nil {
		t.Fatal(err)
	}
	return fast
}

func TestClassify_CallsFencedWhatAnotherRelayDid(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]class{
		errLeaseLost:             fenced,
		errFenced:                fenced,
		context.DeadlineExceeded: unknown,
		nats.ErrConnectionClosed: unknown,
	} {
		if got := classify(err); got != want {
			t.Errorf("classify(%v) = %v, want %v", err, got, want)
		}
	}
}
