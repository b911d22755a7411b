package inbox_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
)

// muteUsers are one who cannot ask for messages, which nobody tells the client,
// and one who can.
func muteUsers(o *server.Options) {
	o.Users = []*server.User{
		{Username: "mute", Password: "x", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.>"}},
		}},
		{Username: "test", Password: "x"},
	}
}

// newEnvOfItsOwn is newEnv on a server that only this test has.
func newEnvOfItsOwn(t *testing.T, user string, tune func(*server.Options)) *env {
	t.Helper()
	e := &env{t: t, db: testenv.Database(t), url: testenv.OwnNATS(t, tune).URL(), stream: "S", prefix: "s"}
	nc, err := nats.Connect(e.url, nats.UserInfo(user, "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if e.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if _, err := e.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: e.stream, Subjects: []string{"s.>"}, Retention: jetstream.WorkQueuePolicy,
	}); err != nil {
		t.Fatal(err)
	}
	e.exec(effectTableSQL)
	return e
}

func TestWorker_ConnectsAgainWhenItsConsumerDeliversNothing(t *testing.T) {
	t.Parallel()
	e := newEnvOfItsOwn(t, "test", muteUsers)
	for range 3 {
		e.publish("n", "")
	}
	var dials atomic.Int32
	dial := func() (*nats.Conn, error) {
		if dials.Add(1) == 1 {
			return nats.Connect(e.url, nats.UserInfo("mute", "x"))
		}
		return nats.Connect(e.url, nats.UserInfo("test", "x"))
	}
	cfg := e.config()
	cfg.AckWait = 600 * time.Millisecond
	e.startOn(e.db, dial, cfg, e.effect("n"))
	e.eventuallySettled()
	e.wantEffects(3)
	e.wantNoTrace()
	if n := dials.Load(); n < 2 {
		t.Errorf("%d connections, want a second one", n)
	}
}

func TestWorker_ShowsWhatItsConsumerHolds(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for range 5 {
		e.publish("n", "bad")
	}
	reg := prometheus.NewRegistry()
	cfg := e.config()
	cfg.AckWait, cfg.RetryDelay, cfg.Metrics = 300*time.Millisecond, time.Hour, reg
	e.start(cfg, failing(e, func(context.Context, pgx.Tx, inbox.Message[[]byte]) error { return errTest }))
	testenv.Eventually(t, "five messages that wait for another attempt", func() bool {
		return metric(t, reg, "jetstream_consumer_num_ack_pending") == 5 && metric(t, reg, "jetstream_consumer_num_pending") == 0
	})
}

// metric reads a gauge or counter that has one value; -1 is none.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return -1
}

// Two workers that share a consumer's name and not its subjects: messages on those
// of the first would wait for ever, and nothing else says so.
func TestWorkers_BothSayWhenTheyDisagreeAboutTheirConsumersSubjects(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start := func(subject string) *records {
		cfg, r := e.config(), &records{}
		cfg.AckWait, cfg.Logger = 300*time.Millisecond, slog.New(slog.NewTextHandler(r, nil))
		e.start(cfg, e.effect(subject))
		testenv.Eventually(t, "the consumer", func() bool {
			c, err := e.js.Consumer(t.Context(), e.stream, "w")
			return err == nil && slices.Equal(c.CachedInfo().Config.FilterSubjects, []string{e.subject(subject)})
		})
		return r
	}
	first, second := start("a"), start("b")
	testenv.Eventually(t, "both to warn", func() bool {
		return strings.Contains(second.String(), "took other subjects until now") &&
			strings.Contains(first.String(), "another worker has given the consumer other subjects")
	})
	if strings.Contains(second.String(), "another worker") {
		t.Errorf("the second worker warns of its own subjects: %s", second.String())
	}
}

// records is a log that a test reads while it is written.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
