package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// sample is one message's way. stored is by the broker's clock.
type sample struct {
	id                            uuid.UUID
	due, committed, stored, acked time.Time
}

// observer listens to what the broker and the worker tell each other: the
// delivery carries when the message was stored, the ack means that the effect
// is committed. The worker is not changed for it.
type observer struct {
	samples []*sample
	left    atomic.Int64 // samples that are not acknowledged

	heard   chan *nats.Msg
	subs    []*nats.Subscription
	byID    map[string]*sample
	byReply map[string]*sample // the subject of a delivery's ack
}

func (l *lab) observe(s jetstream.Stream, inboxPrefix string, n int) (*observer, error) {
	o := &observer{heard: make(chan *nats.Msg, 4*n+1000), byID: map[string]*sample{}, byReply: map[string]*sample{}}
	for range max(n, 1) {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an ID: %w", err)
		}
		smp := &sample{id: id}
		o.samples, o.byID[id.String()] = append(o.samples, smp), smp
	}
	o.left.Store(int64(len(o.samples)))
	// One channel for both, or an ack could overtake its delivery.
	for _, subject := range []string{inboxPrefix + ".>", "$JS.ACK." + s.CachedInfo().Config.Name + ".>"} {
		sub, err := l.nc.ChanSubscribe(subject, o.heard)
		if err != nil {
			o.stop()
			return nil, fmt.Errorf("observe: %w", err)
		}
		o.subs = append(o.subs, sub)
	}
	return o, l.nc.Flush()
}

// run takes notes until stop.
func (o *observer) run(ctx context.Context) error {
	for {
		select {
		case m := <-o.heard:
			if m == nil {
				return nil
			}
			o.note(m, time.Now())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *observer) note(m *nats.Msg, now time.Time) {
	if s := o.byReply[m.Subject]; s != nil {
		if string(m.Data) == "+ACK" && s.acked.IsZero() {
			s.acked = now
			o.left.Add(-1)
		}
		return
	}
	s := o.byID[m.Header.Get(jetstream.MsgIDHeader)]
	if s == nil {
		return // a reply to somebody else
	}
	if meta, err := m.Metadata(); err == nil {
		s.stored, o.byReply[m.Reply] = meta.Timestamp, s
	}
}

// stop ends run.
func (o *observer) stop() {
	for _, sub := range o.subs {
		_ = sub.Unsubscribe() // of a connection that is closed: gone as well
	}
	o.heard <- nil
}

// histogram holds µs up to ten minutes, to three digits.
func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

// record takes less than a microsecond for one: clocks of two servers differ.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), 600_000_000)) // within its bounds
}

// quantile is in ms.
func quantile(h *hdrhistogram.Histogram, q float64) float64 {
	return round(float64(h.ValueAtQuantile(q))/1000, 3)
}

// overTime is how rate and latency went, in parts of the run.
func overTime(samples []*sample) []Series {
	const parts = 50
	start := samples[0].due
	end := samples[len(samples)-1].due.Sub(start).Seconds() + 1e-3
	var m meter
	buckets := make([]*hdrhistogram.Histogram, parts)
	for i := range buckets {
		buckets[i] = histogram()
	}
	for _, s := range samples {
		at := s.due.Sub(start).Seconds()
		record(buckets[min(parts-1, int(at/end*parts))], s.acked.Sub(s.due))
		m.add(s.acked.Sub(start).Seconds(), 1)
	}
	p50, p99 := Series{Name: "p50", Unit: "ms"}, Series{Name: "p99", Unit: "ms"}
	for i, b := range buckets {
		at := (float64(i) + 0.5) / parts * end
		p50.Points = append(p50.Points, Point{at, quantile(b, 50)})
		p99.Points = append(p99.Points, Point{at, quantile(b, 99)})
	}
	return []Series{m.series("effects at the fixed rate", end), p50, p99}
}
