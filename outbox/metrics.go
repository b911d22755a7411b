package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the relay's instruments. Labels are few and never an ID or a key.
type metrics struct {
	active    prometheus.Gauge
	published prometheus.Counter
	dead      prometheus.Counter
	failures  *prometheus.CounterVec
	duration  prometheus.Histogram
	size      prometheus.Histogram
	polls     *prometheus.CounterVec
	wakeups   *prometheus.CounterVec
	rewinds   prometheus.Counter
	pending   prometheus.Gauge
	oldest    prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outbox_relay_active", Help: "1 while this relay holds the lease.",
		}),
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outbox_published_messages_total", Help: "Messages that the broker acknowledged and the ledger records.",
		}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outbox_dead_messages_total", Help: "Messages that no stream could take.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outbox_publish_failures_total", Help: "Publishes that ended a session, by class.",
		}, []string{"reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "outbox_publish_duration_seconds", Help: "From handing a batch to the broker to its last ack.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "outbox_batch_messages", Help: "Messages in a batch.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 14),
		}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outbox_poll_cycles_total", Help: "Polls, by what they found.",
		}, []string{"result"}),
		wakeups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outbox_wakeups_total", Help: "Ends of an idle relay's sleep.",
		}, []string{"source"}),
		rewinds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outbox_rewinds_total", Help: "Times that a loss at the broker was found and repaired.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outbox_pending_messages", Help: "Committed messages that are not yet published; an estimate above 100,000.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outbox_oldest_pending_age_seconds", Help: "Age of the oldest pending message, by the database's clock.",
		}),
	}
	return m
}

// register fails where a registry has a relay's metrics already.
func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		m.active, m.published, m.dead, m.failures, m.duration, m.size, m.polls, m.wakeups, m.rewinds, m.pending, m.oldest,
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("outbox: register metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) poll(p polled) {
	result := "partial"
	switch {
	case p.overflow:
		result = "full"
	case len(p.rows) == 0:
		result = "empty"
	}
	m.polls.WithLabelValues(result).Inc()
}

func (m *metrics) wakeup(rung bool) {
	source := "poll"
	if rung {
		source = "notify"
	}
	m.wakeups.WithLabelValues(source).Inc()
}

func (m *metrics) failure(c class) {
	m.failures.WithLabelValues(c.String()).Inc()
}

func (m *metrics) publishedBatch(b *batch, took time.Duration) {
	if len(b.rows) > 0 {
		m.duration.Observe(took.Seconds())
		m.size.Observe(float64(len(b.rows)))
	}
}

func (m *metrics) recorded(b *batch) {
	m.published.Add(float64(len(b.rows) - len(b.dead)))
	m.dead.Add(float64(len(b.dead)))
}

func (m *metrics) noLag() {
	m.pending.Set(0)
	m.oldest.Set(0)
}

// measureLag asks the database; where it cannot answer, the last figures stay.
func (m *metrics) measureLag(ctx context.Context, conn *pgx.Conn) {
	var pending, age float64
	if err := ask(ctx, conn, lagSQL, &pending, &age); err != nil {
		return
	}
	m.pending.Set(pending)
	m.oldest.Set(age)
}
