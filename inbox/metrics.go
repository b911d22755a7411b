package inbox

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has the worker's consumer and stream as constant labels; subject is
// the handler's, so that its values are as few as the handlers.
type metrics struct {
	processed    *prometheus.CounterVec
	duration     prometheus.Histogram
	batchSize    prometheus.Histogram
	endToEnd     *prometheus.HistogramVec
	inFlight     prometheus.Gauge
	redeliveries prometheus.Counter
	rollbacks    prometheus.Counter
	ackFailures  prometheus.Counter
	pending      prometheus.Gauge
	ackPending   prometheus.Gauge
}

func newMetrics(cfg WorkerConfig) (*metrics, error) {
	m := &metrics{
		processed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "inbox_processed_messages_total",
			Help: "Deliveries settled, by outcome: committed, duplicate, retry, dead, returned.",
		}, []string{"subject", "outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "inbox_process_duration_seconds",
			Help: "From the start of a transaction's handlers to its commit.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "inbox_batch_messages",
			Help: "Messages committed in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		endToEnd: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "inbox_end_to_end_seconds",
			Help: "From the time in a message's UUIDv7 to its commit, across two clocks.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 20),
		}, []string{"subject"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "inbox_in_flight_messages",
			Help: "Deliveries in hand.",
		}),
		redeliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "inbox_redeliveries_total",
			Help: "Deliveries beyond a message's first.",
		}),
		rollbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "inbox_batch_rollbacks_total",
			Help: "Batches whose transaction was lost, and whose messages then ran in parts.",
		}),
		ackFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "inbox_ack_failures_total",
			Help: "Settlements that could not be sent: the message is redelivered.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{ // both as prometheus-nats-exporter names them
			Name: "jetstream_consumer_num_pending",
			Help: "Messages that the consumer has not delivered yet.",
		}),
		ackPending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "jetstream_consumer_num_ack_pending",
			Help: "Messages delivered to any worker and not settled, retries included.",
		}),
	}
	return m, m.register(cfg)
}

func (m *metrics) register(cfg WorkerConfig) error {
	if cfg.Metrics == nil {
		return nil
	}
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"stream": cfg.Stream, "consumer": cfg.Consumer}, cfg.Metrics)
	var errs []error
	for _, c := range []prometheus.Collector{
		m.processed, m.duration, m.batchSize, m.endToEnd,
		m.inFlight, m.redeliveries, m.rollbacks, m.ackFailures, m.pending, m.ackPending,
	} {
		errs = append(errs, reg.Register(c))
	}
	return errors.Join(errs...)
}

func (m *metrics) arrived(d *delivery) {
	m.inFlight.Inc()
	if d.redelivered() {
		m.redeliveries.Inc()
	}
}

func (m *metrics) settled(d *delivery, outcome string) {
	m.inFlight.Dec()
	m.processed.WithLabelValues(d.handler.label(), outcome).Inc()
}

// committed observes a transaction that took took.
func (m *metrics) committed(ds []*delivery, took time.Duration) {
	if len(ds) == 0 {
		return
	}
	m.duration.Observe(took.Seconds())
	m.batchSize.Observe(float64(len(ds)))
	for _, d := range ds {
		if isV7(d.env.ID) {
			m.endToEnd.WithLabelValues(d.handler.label()).Observe(max(time.Since(bornAt(d.env.ID)), 0).Seconds())
		}
	}
}

// label is the subject in metrics; empty for what no handler wants.
func (h *Handler) label() string {
	if h == nil {
		return ""
	}
	return h.subject
}
