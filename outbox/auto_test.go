package outbox

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// An earlier session may have sent what this one begins with, and some of it may
// be stored.
func TestAutoRoute_SendsWhatIsInDoubtByNoFastBatch(t *testing.T) {
	t.Parallel()
	stream := testenv.Stream(t, jetstream.StreamConfig{AllowAtomicPublish: true})
	msgs := messages(strings.TrimSuffix(stream.Subjects[0], ">")+"x", 4*doubtRows)
	if _, _, err := newRoute(t, "plain").publish(t.Context(), msgs[:doubtRows/2]); err != nil {
		t.Fatal(err)
	}
	fast := &timed{name: "fast"}
	a := &autoRoute{doubt: 2 * doubtRows, atomic: newRoute(t, "atomic"), bulk: []*timedRoute{{route: fast}}}
	a.plain = newRoute(t, "plain").(plainRoute)
	a.plain.fresh = &a.fresh
	var seq uint64
	for rest := msgs; len(rest) > 0; {
		n, last, err := a.publish(t.Context(), rest)
		if err != nil {
			t.Fatal(err)
		}
		rest, seq = rest[n:], max(seq, last)
	}
	if want := len(msgs) - fast.sent; seq != uint64(want) || fast.sent == 0 {
		t.Errorf("the stream holds %d messages and fast-ingest got %d of %d, want each once", seq, fast.sent, len(msgs))
	}
	if a.fresh < a.doubt {
		t.Errorf("%d new messages went another way than fast-ingest, want at least %d", a.fresh, a.doubt)
	}
}
