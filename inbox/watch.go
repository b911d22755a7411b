package inbox

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errSilent ends a session whose consumer should deliver and does not, or whose
// connection is open and carries nothing.
var errSilent = errors.New("consumer has messages and delivers none")

// patience is how many looks in a row must find silence.
const patience = 3

// watch looks at the consumer until ctx is done, for the metrics, and returns
// errSilent when it delivers nothing to a worker that has nothing else to do.
func (s *session) watch(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for silent := 0; silent < patience; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		arrived := s.arrived.Swap(0)
		if s.owes(ctx) && arrived == 0 && s.held.empty() {
			silent++
		} else {
			silent = 0
		}
	}
	return errSilent
}

// owes says whether the broker has something to deliver, or an open connection
// does not let it say so.
func (s *session) owes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return s.conn.IsConnected() && !errors.Is(err, jetstream.ErrConsumerNotFound) // reading notices that
	}
	s.metrics.pending.Set(float64(info.NumPending))
	s.metrics.ackPending.Set(float64(info.NumAckPending))
	warnOfSubjects(ctx, s.cfg, "another worker has given the consumer other subjects: give each of the two a consumer of its own", info.Config)
	return info.NumPending > 0 && info.NumAckPending < info.Config.MaxAckPending && !info.Paused
}
