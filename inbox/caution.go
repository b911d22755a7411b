package inbox

import "sync/atomic"

// caution is how many messages may run between two savepoints: all of a batch
// while none fails, few after one has, and twice as many with each batch that
// goes well. A savepoint costs a round trip; a failure costs a second run of
// all messages since the last one.
type caution struct {
	max int32
	now atomic.Int32
}

// careful is the fewest messages between two savepoints.
const careful = 32

func newCaution(batch int) *caution {
	c := &caution{max: int32(batch)}
	c.now.Store(c.max)
	return c
}

func (c *caution) limit() int { return int(c.now.Load()) }

// learn adjusts to a batch that was committed. Lanes that learn at once may lose
// each other's lesson, which the next batch teaches again.
func (c *caution) learn(failed bool) {
	if failed {
		c.now.Store(min(careful, c.max))
		return
	}
	c.now.Store(min(2*c.now.Load(), c.max))
}
