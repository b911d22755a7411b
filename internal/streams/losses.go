package streams

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// minAge is how long workers may be down before a stream with a maximum age
// drops what they have not seen.
const minAge = time.Hour

// losses names each setting by which a stream acknowledges a message and then
// drops it, or acknowledges it before it has it.
func losses(c jetstream.StreamConfig) []string {
	var lines []string
	for _, l := range []struct {
		drops bool
		line  string
	}{
		{
			c.Discard == jetstream.DiscardOld && c.MaxMsgs > 0,
			fmt.Sprintf("discard is old with max_msgs %d, so a full stream drops messages it has acknowledged: %s", c.MaxMsgs, edit(c, "--discard=new")),
		},
		{
			c.Discard == jetstream.DiscardOld && c.MaxBytes > 0,
			fmt.Sprintf("discard is old with max_bytes %d, so a full stream drops messages it has acknowledged: %s", c.MaxBytes, edit(c, "--discard=new")),
		},
		{
			c.MaxMsgsPerSubject > 0 && (c.Discard == jetstream.DiscardOld || !c.DiscardNewPerSubject),
			fmt.Sprintf("max_msgs_per_subject is %d, so a new message drops an older one of its subject: %s", c.MaxMsgsPerSubject, edit(c, "--max-msgs-per-subject=-1")),
		},
		{
			c.MaxAge > 0 && c.MaxAge < minAge,
			fmt.Sprintf("max_age is %s, need at least %s or none, because messages older than that are dropped while workers are down: %s",
				c.MaxAge, minAge, edit(c, "--max-age="+minAge.String())),
		},
		{c.NoAck, "no_ack is true, so a publisher never learns what was stored: " + edit(c, "--ack")},
		{
			c.PersistMode == jetstream.AsyncPersistMode,
			"persist_mode is async, so messages are acknowledged before they are written, and this cannot be changed: empty the stream and remove it",
		},
	} {
		if l.drops {
			lines = append(lines, l.line)
		}
	}
	return lines
}

func edit(c jetstream.StreamConfig, flag string) string {
	return "run nats stream edit " + c.Name + " " + flag
}
