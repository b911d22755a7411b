package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

// Status is what the database knows about the consumers of messages.
type Status struct {
	Consumers []ConsumerStatus
	// Capped says that the inbox holds more rows than were counted.
	Capped bool
}

// ConsumerStatus is one durable consumer's part of a Status.
type ConsumerStatus struct {
	Consumer  string
	Processed int64   // messages the inbox remembers, of those counted
	Retrying  int64   // messages with a failed attempt that are neither done nor dead
	PerSecond float64 // processed in the last minute, as its mean
	Dead      int64   // dead letters; the relay's own are under deadletter.Relay
}

// countCap bounds what ReadStatus counts: about 50 ms of work.
const countCap = 250_000

const statusSQL = `
SELECT coalesce(i.consumer, f.consumer) AS consumer, coalesce(i.n, 0) AS processed, coalesce(f.n, 0) AS retrying
FROM (SELECT consumer, count(*) AS n FROM (SELECT consumer FROM jetbox.inbox LIMIT $1) i GROUP BY consumer) i
FULL JOIN (SELECT consumer, count(DISTINCT message_id) AS n FROM jetbox.failed_attempt GROUP BY consumer) f
	ON f.consumer = i.consumer
ORDER BY 1`

// ReadStatus counts what each consumer has processed, is retrying and gave up.
func ReadStatus(ctx context.Context, db *pgx.Conn) (Status, error) {
	rows, err := db.Query(ctx, statusSQL, countCap)
	if err != nil {
		return Status{}, fmt.Errorf("inbox: status: %w", err)
	}
	var s Status
	var total int64
	var c ConsumerStatus
	_, err = pgx.ForEachRow(rows, []any{&c.Consumer, &c.Processed, &c.Retrying}, func() error {
		s.Consumers = append(s.Consumers, c)
		total += c.Processed
		return nil
	})
	if err != nil {
		return Status{}, fmt.Errorf("inbox: status: %w", err)
	}
	s.Capped = total >= countCap
	letters, err := deadletter.CountByConsumer(ctx, db)
	if err != nil {
		return Status{}, fmt.Errorf("inbox: status: %w", err)
	}
	for _, l := range letters {
		s.of(l.Consumer).Dead = l.Letters
	}
	rates, err := readRates(ctx, db)
	if err != nil {
		return Status{}, fmt.Errorf("inbox: status: %w", err)
	}
	for consumer, rate := range rates {
		s.of(consumer).PerSecond = rate
	}
	return s, nil
}

// of finds a consumer, or adds one that has nothing but dead letters.
func (s *Status) of(name string) *ConsumerStatus {
	for i := range s.Consumers {
		if s.Consumers[i].Consumer == name {
			return &s.Consumers[i]
		}
	}
	s.Consumers = append(s.Consumers, ConsumerStatus{Consumer: name})
	return &s.Consumers[len(s.Consumers)-1]
}
