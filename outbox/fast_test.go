package outbox

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// A session that is cut off leaves its batch open on the server.
func TestFastRoute_GoesOnWithNoBatchOfAnEarlierSession(t *testing.T) {
	t.Parallel()
	stream := testenv.Stream(t, jetstream.StreamConfig{AllowBatchPublish: true})
	subject := strings.TrimSuffix(stream.Subjects[0], ">") + "x"
	many := make([]*nats.Msg, 2*fastWindow)
	for i := range many {
		many[i] = &nats.Msg{Subject: subject, Header: nats.Header{"Nats-Msg-Id": {"early" + strconv.Itoa(i)}}}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := newRoute(t, "fast").publish(gone, many); err == nil {
		t.Fatal("the first session was not cut off")
	}
	stored, _, err := newRoute(t, "fast").publish(t.Context(), threeMessages(subject))
	if err != nil || stored != 3 {
		t.Errorf("stored %d, %v, want all three", stored, err)
	}
}
