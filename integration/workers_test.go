package integration_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// One of two workers is killed with messages in hand: the other one gets them
// when AckWait is over, which is well within what Eventually waits.
func TestWorkers_TakeOverFromOneThatWasKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(blockHandlerSQL)
	release := l.hold(holdWorkSQL)
	broker := testenv.NATSURL(t)
	l.start("relay", "relay", broker)
	victim := l.start("worker", "victim", broker)
	l.insert(0, 500)
	testenv.Eventually(t, "the handler at work", func() bool { return l.count(blockedSQL) > 0 })
	l.start("worker", "other", broker)
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	l.count(terminateSQL)
	start := time.Now()
	release()
	l.handled(500)
	t.Logf("done %v after the kill, with an AckWait of 2s", time.Since(start).Round(time.Millisecond))
}

// AckWait is longer than Eventually waits: a message that a stopped worker had
// kept, or whose acknowledgement it had lost, would fail this test.
func TestWorkers_LoseNoTimeOverOneThatWasStopped(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.configure("1m")
	broker := testenv.NATSURL(t)
	l.start("relay", "relay", broker)
	stopped := l.start("worker", "stopped", broker)
	l.insert(0, 5000)
	testenv.Eventually(t, "the first effects", func() bool { return l.count(`SELECT count(*) FROM app.effect`) > 0 })
	if err := stopped.Stop(); err != nil {
		t.Fatal(err)
	}
	done := l.count(`SELECT count(*) FROM app.effect`)
	testenv.Eventually(t, "every effect to be acknowledged", func() bool { return int(l.waiting()) == 5000-done })
	start := time.Now()
	l.start("worker", "other", broker)
	l.handled(5000)
	t.Logf("%d messages were left, done %v later; %d deliveries were given back",
		5000-done, time.Since(start).Round(time.Millisecond), l.redeliveries())
}

// redeliveries is how many deliveries were not their message's first.
func (l *lab) redeliveries() uint64 {
	l.t.Helper()
	c, err := l.js.Consumer(l.t.Context(), l.stream, "w")
	if err != nil {
		l.t.Fatal(err)
	}
	d := c.CachedInfo().Delivered
	return d.Consumer - d.Stream
}

// A service in .NET writes a row and knows nothing else of jetbox; whoever reads
// the stream needs no more than a NATS client.
func TestRelay_CarriesARowOfAnASPNETServiceToAPlainClient(t *testing.T) {
	t.Parallel()
	l := newBareLab(t)
	broker := testenv.OwnNATS(t)
	l.start("relay", "relay", broker.URL())
	const body = `{"Id": "6f1b0f9e-5c0d-4b6e-9f55-0d9c9f0a3c11", "Payload": "Grüße, \"Ada\""}`
	var id string
	if err := l.db.QueryRow(t.Context(), `INSERT INTO jetbox.outbox (subject, key, headers, payload)
		VALUES ('jobs.work', NULL, '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}', $1::text::json)
		RETURNING message_id::text`, body).Scan(&id); err != nil {
		t.Fatal(err)
	}
	msg := plainClient(t, broker.URL())
	if msg.Subject() != "jobs.work" || string(msg.Data()) != body {
		t.Errorf("%s with body %s, want jobs.work with %s", msg.Subject(), msg.Data(), body)
	}
	want := nats.Header{
		"Nats-Msg-Id": {id},
		"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	got := msg.Headers()
	for name, values := range want {
		if got.Get(name) != values[0] {
			t.Errorf("header %s = %q, want %q", name, got.Get(name), values[0])
		}
	}
	if len(got) != len(want) {
		t.Errorf("headers = %v, want %v", got, want)
	}
}

// plainClient reads the first message of the stream JOBS.
func plainClient(t *testing.T, url string) jetstream.Msg {
	t.Helper()
	js, err := jetstream.New(testenv.Dial(t, url))
	if err != nil {
		t.Fatal(err)
	}
	var c jetstream.Consumer
	testenv.Eventually(t, "the stream", func() bool {
		c, err = js.CreateConsumer(context.Background(), "JOBS", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
		return err == nil
	})
	msg, err := c.Next(jetstream.FetchMaxWait(20 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
