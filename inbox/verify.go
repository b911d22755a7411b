package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// CheckConsumer reports why a worker would refuse the consumer that exists, as
// an error that wraps ErrConsumer. One that does not exist is fine: the worker
// makes it.
func CheckConsumer(ctx context.Context, js jetstream.JetStream, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	c, err := js.Consumer(ctx, stream, consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inbox: look up consumer: %w", err)
	}
	info := c.CachedInfo()
	if wrong := unfit(info.Config); len(wrong) > 0 {
		return info, fmt.Errorf("%w %s of stream %s exists with %s", ErrConsumer, consumer, stream, strings.Join(wrong, ", "))
	}
	return info, nil
}
