package outbox

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// A session that is cut off leaves its batch open on the server.
func TestFastRoute_GoesOnWithNoBatchOfAnEarlierSession(t *testing.T) {
	t.Parallel()
	stream := testenv.Stream(t, jetstream.StreamConfig{AllowBatchPublish: true})
	msgs := messages(strings.TrimSuffix(stream.Subjects[0], ">")+"x", 2*fastWindow+3)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := newRoute(t, "fast").publish(gone, msgs[:2*fastWindow]); err == nil {
		t.Fatal("the first session was not cut off")
	}
	stored, _, err := newRoute(t, "fast").publish(t.Context(), msgs[2*fastWindow:])
	if err != nil || stored != 3 {
		t.Errorf("stored %d, %v, want all three", stored, err)
	}
}
