package inbox_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
)

// Each consumer has a ledger of its own, whatever the stream keeps and where: a
// message has one effect for each of them, however often it is delivered.
func TestWorker_HasOneEffectPerConsumerInEveryMode(t *testing.T) {
	t.Parallel()
	consumers := map[jetstream.RetentionPolicy][]string{
		jetstream.WorkQueuePolicy: {"w"},
		jetstream.LimitsPolicy:    {"w", "audit"},
		jetstream.InterestPolicy:  {"w", "audit"},
	}
	for retention, names := range consumers {
		for _, storage := range []jetstream.StorageType{jetstream.FileStorage, jetstream.MemoryStorage} {
			t.Run(fmt.Sprintf("%v, %v", retention, storage), func(t *testing.T) {
				t.Parallel()
				e := newEnvOn(t, jetstream.StreamConfig{Retention: retention, Storage: storage})
				for _, name := range names {
					e.startConsumer(name)
				}
				ids := e.publishTwice(50)
				testenv.Eventually(t, "every consumer to be done", func() bool { return e.allAcked(names, 100) })
				for _, name := range names {
					e.wantCount(len(ids), "effects of "+name, `SELECT count(*) FROM effect WHERE consumer = $1`, name)
					e.wantCount(len(ids), "messages with an effect of "+name, `SELECT count(DISTINCT message_id) FROM effect WHERE consumer = $1`, name)
					e.wantCount(len(ids), "ledger of "+name, `SELECT count(*) FROM jetbox.inbox WHERE consumer = $1`, name)
				}
				if left := e.stored(); (left == 0) == (retention == jetstream.LimitsPolicy) {
					t.Errorf("%d messages are left in the stream", left)
				}
			})
		}
	}
}

// startConsumer starts a worker whose effects name it, and waits until it is there.
func (e *env) startConsumer(name string) {
	e.t.Helper()
	cfg := e.config()
	cfg.Consumer = name
	w, _ := e.startOn(e.db, e.dial, cfg, e.effectOf(name))
	testenv.Eventually(e.t, "a ready worker", func() bool { return w.Ready(e.t.Context()) == nil })
}

func (e *env) effectOf(consumer string) inbox.Handler {
	e.exec(fmt.Sprintf(`CREATE FUNCTION public.handle_%[1]s(m jetbox.message) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO effect (message_id, consumer) VALUES (m.message_id, '%[1]s') $$`, consumer))
	return inbox.SQLFunction(e.subject("n"), "public.handle_"+consumer)
}

// publishTwice stores n messages, and each once more past the duplicate window.
func (e *env) publishTwice(n int) (ids []uuid.UUID) {
	for range n {
		ids = append(ids, e.publish("n", "{}"))
	}
	for _, id := range ids {
		e.publish("n", "{}", replayed(id, 1))
	}
	return ids
}

// allAcked says whether each consumer has acknowledged n deliveries.
func (e *env) allAcked(consumers []string, n uint64) bool {
	e.t.Helper()
	for _, name := range consumers {
		c, err := e.js.Consumer(e.t.Context(), e.stream, name)
		if err != nil {
			e.t.Fatal(err)
		}
		if c.CachedInfo().AckFloor.Stream < n {
			return false
		}
	}
	return true
}
