package outbox

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// BenchmarkRoute compares the routes on one server that syncs now and then, one
// that syncs always, and three with replicas. An op is a message.
func BenchmarkRoute(b *testing.B) {
	synced := func(o *server.Options) { o.SyncAlways = true }
	for _, place := range []struct {
		name     string
		url      func(testing.TB) string
		replicas int
	}{
		{"one server", func(t testing.TB) string { return testenv.OwnNATS(t).URL() }, 1},
		{"one server, sync always", func(t testing.TB) string { return testenv.OwnNATS(t, synced).URL() }, 1},
		{"three servers, three replicas", func(t testing.TB) string { return testenv.Cluster(t)[0].ClientURL() }, 3},
	} {
		b.Run(place.name, func(b *testing.B) {
			nc, err := nats.Connect(place.url(b))
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			for _, name := range []string{"plain", "atomic", "fast"} {
				b.Run(name, func(b *testing.B) { benchmarkRoute(b, nc, name, place.replicas) })
			}
		})
	}
}

func benchmarkRoute(b *testing.B, nc *nats.Conn, name string, replicas int) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(plainWindow))
	if err != nil {
		b.Fatal(err)
	}
	cfg := jetstream.StreamConfig{
		Name: "B", Subjects: []string{"b.>"}, Replicas: replicas,
		Retention: jetstream.WorkQueuePolicy, AllowAtomicPublish: true, AllowBatchPublish: true,
	}
	if _, err := js.CreateStream(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = js.DeleteStream(context.Background(), cfg.Name) }) // for the next route
	route, body := routeOn(b, nc, js, name), make([]byte, 128)
	b.ResetTimer()
	for left := max(b.N, 2); left > 1; left -= batchRows {
		msgs := make([]*nats.Msg, min(left, batchRows))
		for i := range msgs {
			msgs[i] = &nats.Msg{Subject: "b.x", Data: body, Header: nats.Header{"Nats-Msg-Id": {uuid.NewString()}}}
		}
		if _, _, err := publishAll(b.Context(), route, msgs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
