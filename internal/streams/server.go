package streams

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// forServer leaves out what the server is too old for: it would ignore the
// field, or refuse the whole request for it. The relay then publishes one by one.
func forServer(js jetstream.JetStream, want jetstream.StreamConfig) jetstream.StreamConfig {
	version := js.Conn().ConnectedServerVersion()
	want.AllowAtomicPublish = want.AllowAtomicPublish && atLeast(version, 2, 12)
	want.AllowBatchPublish = want.AllowBatchPublish && atLeast(version, 2, 14)
	return want
}

func atLeast(version string, major, minor int) bool {
	var haveMajor, haveMinor int
	if _, err := fmt.Sscanf(version, "%d.%d", &haveMajor, &haveMinor); err != nil {
		return false
	}
	return haveMajor > major || (haveMajor == major && haveMinor >= minor)
}
