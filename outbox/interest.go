package outbox

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// interest knows which subjects the consumers of a stream take that keeps messages
// only for consumers: it acknowledges any other message, and drops it. Nil stands
// for a stream that keeps all.
type interest struct {
	stream  jetstream.Stream
	filters []string
	asked   time.Time
}

// interestAge is how old an answer of the broker may be, and interestPause is between
// two questions about subjects that nobody takes.
const (
	interestAge   = time.Minute
	interestPause = time.Second
)

func newInterest(s jetstream.Stream) *interest {
	if s.CachedInfo().Config.Retention != jetstream.InterestPolicy {
		return nil
	}
	return &interest{stream: s}
}

// takes says whether some consumer takes subject. Where the broker does not say who
// takes what, somebody may.
func (i *interest) takes(subject string) bool {
	if i == nil {
		return true
	}
	age := time.Since(i.asked)
	if age < interestPause || (age < interestAge && takes(i.filters, subject)) {
		return takes(i.filters, subject)
	}
	i.asked = time.Now()
	i.filters = i.ask()
	return takes(i.filters, subject)
}

// ask lists the subjects of all consumers; one without any takes everything.
func (i *interest) ask() (filters []string) {
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	list := i.stream.ListConsumers(ctx)
	for info := range list.Info() {
		c := info.Config
		switch {
		case c.FilterSubject != "":
			filters = append(filters, c.FilterSubject)
		case len(c.FilterSubjects) > 0:
			filters = append(filters, c.FilterSubjects...)
		default:
			filters = append(filters, ">")
		}
	}
	if list.Err() != nil {
		return nil
	}
	return filters
}
