package wire_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/jetboxhq/jetbox/internal/wire"
)

func FuzzDecode_TakesBackWhatEncodeWrote(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), 0, "", "", "a", "b")
	f.Add([]byte("0123456789abcdef"), 3, "k", "text/plain", "Traceparent", "00-x")
	f.Add([]byte{}, -1, "\r\n", ";", "Nats-Rollup", "all")
	f.Fuzz(func(t *testing.T, id []byte, generation int, key, contentType, name, value string) {
		e := wire.Envelope{Generation: max(generation, 0), Key: key, ContentType: contentType, Headers: nats.Header{}}
		copy(e.ID[:], id)
		if !wire.Reserved(name) {
			e.Headers[name] = []string{value}
		}
		got, err := wire.Decode(wire.Encode(e))
		if err != nil || got.ID != e.ID || got.Generation != e.Generation || got.Key != key || got.ContentType != contentType || len(got.Headers) != len(e.Headers) {
			t.Errorf("Decode(Encode(%+v)) = %+v, %v", e, got, err)
		}
	})
}

func FuzzDecode_AnyIDIsOneID(f *testing.F) {
	for _, id := range []string{"x", "01890a5d-ac96-774b-bcce-b302099a8057", "01890A5D-AC96-774B-BCCE-B302099A8057", "a#r1", "\x00"} {
		f.Add(id, "")
	}
	f.Fuzz(func(t *testing.T, brokerID, messageID string) {
		h := nats.Header{wire.BrokerID: {brokerID}, wire.MessageID: {messageID}}
		one, err := wire.Decode(h)
		two, again := wire.Decode(h)
		if (err == nil) != (brokerID != "" || messageID != "") || one.ID != two.ID || (err == nil) != (again == nil) {
			t.Errorf("Decode(%q, %q) = %v, %v, then %v, %v", brokerID, messageID, one.ID, err, two.ID, again)
		}
		if err == nil && one.ID == uuid.Nil && brokerID != uuid.Nil.String() && messageID != uuid.Nil.String() {
			t.Errorf("Decode(%q, %q) has no ID", brokerID, messageID)
		}
	})
}
