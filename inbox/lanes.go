package inbox

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// joinWait is how long a message waits for a batch that runs to come to its COMMIT
// before it begins another beside it. A transaction costs much the same for one
// message as for ten, and several at once take from each other the time that each
// needs; several that commit at once share what the disk needs.
const joinWait = 5 * time.Millisecond

// lanes hands out deliveries in batches to whoever asks, so that the messages of
// a key are in one batch at a time and stay in order.
type lanes struct {
	limit   int // of messages in a batch
	batches chan []*delivery

	mu         sync.Mutex
	idle, busy int               // lanes, and batches that have work to do
	line       []*chain          // of which nothing runs, in the order in which they came to that
	waiting    int               // messages in line
	keys       map[string]*chain // that have messages here or in a batch
	late       *time.Timer
}

// chain is a message without a key, or what waits with one key. It is in line
// while it has messages and none of it runs.
type chain struct {
	ds      []*delivery
	running bool // a batch has messages of it
}

// newLanes makes n lanes for batches of at most limit messages.
func newLanes(n, limit int) *lanes {
	l := &lanes{limit: limit, batches: make(chan []*delivery, n), keys: map[string]*chain{}}
	l.late = time.AfterFunc(time.Hour, l.wake)
	l.late.Stop()
	return l
}

func (l *lanes) put(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.chain(d.env.Key)
	if !c.running {
		l.waiting++
		if len(c.ds) == 0 {
			l.line = append(l.line, c)
		}
	}
	c.ds = append(c.ds, d)
	l.begin()
}

// chain returns the one that key belongs to, a new one if it has none.
func (l *lanes) chain(key string) *chain {
	if key == "" {
		return &chain{}
	}
	c := l.keys[key]
	if c == nil {
		c = &chain{}
		l.keys[key] = c
	}
	return c
}

// take waits for a batch, which the caller ends with rest. It returns none once
// done is closed.
func (l *lanes) take(done <-chan struct{}) []*delivery {
	l.mu.Lock()
	l.idle++
	l.begin()
	l.mu.Unlock()
	select {
	case batch := <-l.batches:
		return batch
	case <-done:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == 0 { // a batch was handed out for each lane, one of them for this
		return <-l.batches
	}
	l.idle--
	return nil
}

// yield lets others begin while a batch only waits for its COMMIT, which it does
// until it calls resume.
func (l *lanes) yield() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	l.begin()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.busy++
	}
}

// rest ends a batch: what has waited for its keys may run.
func (l *lanes) rest(batch []*delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	for _, d := range batch {
		c := l.keys[d.env.Key]
		if c == nil || !c.running {
			continue // no key, or seen with an earlier message
		}
		c.running = false
		if len(c.ds) > 0 {
			l.line, l.waiting = append(l.line, c), l.waiting+len(c.ds)
		} else {
			delete(l.keys, d.env.Key)
		}
	}
}

func (l *lanes) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
}

// begin hands out batches while lanes are idle and a batch is due.
func (l *lanes) begin() {
	for l.idle > 0 && l.waiting > 0 {
		age := time.Since(l.line[0].ds[0].arrived)
		if l.busy > 0 && l.waiting < l.limit && age < joinWait {
			l.late.Reset(joinWait - age)
			return
		}
		l.idle, l.busy = l.idle-1, l.busy+1
		l.batches <- l.fill()
	}
}

// maxBatchBytes bounds the payloads of one batch.
const maxBatchBytes = 16 << 20

// fill takes a batch from the line. What it leaves of a key waits for its end.
func (l *lanes) fill() (batch []*delivery) {
	bytes := 0
	full := func() bool { return len(batch) >= l.limit || bytes >= maxBatchBytes }
	for len(l.line) > 0 && !full() {
		var c *chain
		c, l.line = shift(l.line)
		l.waiting -= len(c.ds)
		for c.running = true; len(c.ds) > 0 && !full(); {
			var d *delivery
			d, c.ds = shift(c.ds)
			batch, bytes = append(batch, d), bytes+len(d.msg.Data())
		}
	}
	return batch
}

// shift takes the first of s, which lets go of it.
func shift[T any](s []*T) (*T, []*T) {
	first := s[0]
	s[0] = nil
	return first, s[1:]
}

// empty returns what no lane has taken.
func (l *lanes) empty() (rest []*delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range append(l.line, slices.Collect(maps.Values(l.keys))...) {
		rest, c.ds = append(rest, c.ds...), nil
	}
	l.line, l.waiting = nil, 0
	l.late.Stop()
	return rest
}
