package outbox_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

// benchMessages wait in the outbox, benchBody is what each holds: 128 bytes.
const (
	benchMessages = 200_000
	benchBody     = `{"to":"ada@example.com","template":"welcome","n":123456789012345678901234567890123456789012345678901,"x":"abcdefghijklmnop"}`
)

// BenchmarkRelay_DrainsABacklog alternates the relay with a bare nats.go
// asynchronous publisher that sends the same messages from memory to the same
// kind of stream, and reports the median rates and their ratio.
func BenchmarkRelay_DrainsABacklog(b *testing.B) {
	var relay, bare, ratio []float64
	for b.Loop() {
		r, p := drain(b), publishBare(b)
		relay, bare, ratio = append(relay, r), append(bare, p), append(ratio, r/p)
	}
	b.ReportMetric(median(relay), "relay-msg/s")
	b.ReportMetric(median(bare), "bare-msg/s")
	b.ReportMetric(median(ratio), "ratio")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// drain returns the rate at which a relay empties a full outbox.
func drain(b *testing.B) float64 {
	l := newLab(b)
	l.stream.Retention = jetstream.WorkQueuePolicy
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) SELECT $1, $2::text::json FROM generate_series(1, $3)`,
		l.prefix+".x", benchBody, benchMessages)
	l.exec(`VACUUM jetbox.outbox`) // hint bits, as after a while
	l.exec(`CHECKPOINT`)
	start := time.Now()
	stop := l.relay(func(c *outbox.RelayConfig) { c.Logger = nil })
	testenv.Eventually(b, "the backlog to be published", func() bool {
		return ask[int](l, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch`) == benchMessages
	})
	took := ask[time.Time](l, `SELECT max(published_at) FROM jetbox.relay_batch`).Sub(start)
	stop()
	return benchMessages / took.Seconds()
}

// publishBare returns the rate of a publisher that reads from memory.
func publishBare(b *testing.B) float64 {
	l := newLab(b)
	l.stream.Retention = jetstream.WorkQueuePolicy
	if _, err := l.js.CreateStream(b.Context(), l.stream); err != nil {
		b.Fatal(err)
	}
	nc, err := l.dial()
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]string, benchMessages)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
	}
	start := time.Now()
	for _, id := range ids {
		m := &nats.Msg{Subject: l.prefix + ".x", Data: []byte(benchBody), Header: nats.Header{"Nats-Msg-Id": {id}}}
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	return benchMessages / time.Since(start).Seconds()
}

// BenchmarkRelay_Latency measures rare messages from commit to stored.
func BenchmarkRelay_Latency(b *testing.B) {
	l := newLab(b)
	l.relay()
	l.insert(0, 1)
	l.waitCaughtUp()
	nc, err := nats.Connect(l.nats)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync(l.prefix + ".>")
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		time.Sleep(10 * time.Millisecond) // the relay goes to sleep
		l.insert(i, 1)
		committed := time.Now()
		if _, err := sub.NextMsg(5 * time.Second); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(committed))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op")
}
