package outbox_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// The stream would acknowledge such a message and drop it.
func TestRelay_SetsAsideWhatNoConsumerOfAnInterestStreamTakes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stream.Retention = jetstream.InterestPolicy
	s, err := l.js.CreateStream(t.Context(), l.stream)
	if err != nil {
		t.Fatal(err)
	}
	consumer := func(name, filter string) {
		t.Helper()
		if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
			Durable: name, AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: l.prefix + filter,
		}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(subject string) {
		t.Helper()
		l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, l.prefix+subject)
		l.waitCaughtUp()
	}
	kept := func() uint64 {
		t.Helper()
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
	consumer("a", ".a")
	l.relay()
	put(".a")
	put(".b")
	if dead := ask[int](l, `SELECT count(*) FROM jetbox.dead_letter WHERE subject = $1`, l.prefix+".b"); dead != 1 || kept() != 1 {
		t.Errorf("%d dead and %d in the stream, want one of each", dead, kept())
	}
	consumer("b", ".b")
	testenv.Eventually(t, "a message that the new consumer takes", func() bool {
		put(".b")
		return kept() > 1
	})
}
