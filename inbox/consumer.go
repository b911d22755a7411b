package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// ErrConsumer reports a durable consumer that exists and is not fit for the
// worker, or that the broker refuses to make.
var ErrConsumer = errors.New("inbox: consumer")

// maxAckPending lets several workers hold what they need; messages that wait
// for their next attempt count too.
const maxAckPending = 20_000

// consumerConfig is the durable consumer the worker needs. There is no BackOff:
// it would change the delays of NakWithDelay. MaxDeliver is unlimited because a
// message that reaches it stays in a work queue, unseen: the worker counts.
func (c WorkerConfig) consumerConfig() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        c.Consumer,
		AckPolicy:      jetstream.AckExplicitPolicy,
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckWait:        c.AckWait,
		MaxDeliver:     -1,
		MaxAckPending:  maxAckPending,
		FilterSubjects: c.FilterSubjects,
	}
}

// ensureConsumer makes the durable consumer, or brings the one that exists to
// shape. One that is as it should be is not written to, so that a worker needs
// no right to do so.
func ensureConsumer(ctx context.Context, js jetstream.JetStream, cfg WorkerConfig) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	want := cfg.consumerConfig()
	c, err := js.Consumer(ctx, cfg.Stream, cfg.Consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = js.CreateConsumer(ctx, cfg.Stream, want)
		return c, refused(err)
	}
	if err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	have := c.CachedInfo().Config
	if wrong := unfit(have); len(wrong) > 0 {
		return nil, fmt.Errorf("%w %s of stream %s exists with %s: delete it, or name another",
			ErrConsumer, cfg.Consumer, cfg.Stream, strings.Join(wrong, ", "))
	}
	if adjusted := adjust(have, want); !same(have, adjusted) {
		warnOfSubjects(ctx, cfg, "consumer took other subjects until now; what waits on those that no worker names goes to nobody", have)
		c, err = js.UpdateConsumer(ctx, cfg.Stream, adjusted)
		return c, refused(err)
	}
	return c, nil
}

// warnOfSubjects says that the consumer, as have shows it, does not take what this
// worker is for: two workers share its name and not its subjects.
func warnOfSubjects(ctx context.Context, cfg WorkerConfig, what string, have jetstream.ConsumerConfig) {
	mine := filters(cfg.consumerConfig())
	if slices.Equal(filters(have), mine) {
		return
	}
	cfg.Logger.LogAttrs(ctx, slog.LevelWarn, what, slog.String("stream", cfg.Stream), slog.String("consumer", cfg.Consumer),
		slog.Any("has", filters(have)), slog.Any("wants", mine))
}

// What the server answers when two consumers of a work queue would share messages.
const (
	secondOfQueue   = jetstream.ErrorCode(10099)
	overlapsInQueue = jetstream.ErrorCode(10100)
)

// refused marks what the broker will refuse again.
func refused(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*jetstream.APIError](err)
	if ok && (e.ErrorCode == secondOfQueue || e.ErrorCode == overlapsInQueue) {
		return fmt.Errorf("%w: %w: a work queue gives each message to one consumer, so give this one FilterSubjects that no other has",
			ErrConsumer, err)
	}
	if ok && (e.Code == 400 && e.ErrorCode != streams.NoPeers || e.ErrorCode == jetstream.JSErrCodeOverlappingFilterSubjects) {
		return fmt.Errorf("%w: %w", ErrConsumer, err)
	}
	return fmt.Errorf("consumer: %w", err)
}

// unfit names each field of have that breaks a promise of the worker and that
// it will not change under whoever set it.
func unfit(have jetstream.ConsumerConfig) []string {
	var wrong []string
	check := func(ok bool, field string, got, want any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s %v (want %v)", field, got, want))
		}
	}
	check(have.AckPolicy == jetstream.AckExplicitPolicy, "AckPolicy", have.AckPolicy, "explicit")
	check(have.DeliverPolicy == jetstream.DeliverAllPolicy, "DeliverPolicy", have.DeliverPolicy, "all")
	check(have.ReplayPolicy == jetstream.ReplayInstantPolicy, "ReplayPolicy", have.ReplayPolicy, "instant")
	check(have.MaxDeliver == -1, "MaxDeliver", have.MaxDeliver, -1)
	check(len(have.BackOff) == 0, "BackOff", have.BackOff, "none")
	check(have.DeliverSubject == "", "DeliverSubject", have.DeliverSubject, "none")
	check(!have.HeadersOnly, "HeadersOnly", have.HeadersOnly, false)
	check(have.InactiveThreshold == 0, "InactiveThreshold", have.InactiveThreshold, "none")
	check(len(have.PriorityGroups) == 0, "PriorityGroups", have.PriorityGroups, "none")
	check(have.MaxRequestBatch == 0, "MaxRequestBatch", have.MaxRequestBatch, "none")
	check(have.MaxRequestExpires == 0, "MaxRequestExpires", have.MaxRequestExpires, "none")
	check(have.MaxRequestMaxBytes == 0, "MaxRequestMaxBytes", have.MaxRequestMaxBytes, "none")
	return wrong
}

// adjust returns have with the fields that the worker's configuration decides.
func adjust(have, want jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	have.AckWait, have.MaxAckPending = want.AckWait, want.MaxAckPending
	have.FilterSubject, have.FilterSubjects = "", want.FilterSubjects
	return have
}

func same(a, b jetstream.ConsumerConfig) bool {
	return a.AckWait == b.AckWait && a.MaxAckPending == b.MaxAckPending && slices.Equal(filters(a), filters(b))
}

// filters are the subjects of a consumer, sorted; the broker keeps a single one
// in a field of its own.
func filters(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return slices.Sorted(slices.Values(c.FilterSubjects))
}

// widest drops the subjects that another one covers: the broker refuses filters
// that overlap.
func widest(subjects []string) []string {
	subjects = slices.Compact(slices.Sorted(slices.Values(subjects)))
	return slices.DeleteFunc(slices.Clone(subjects), func(s string) bool {
		return slices.ContainsFunc(subjects, func(other string) bool {
			return other != s && streams.Covers(other, s)
		})
	})
}
