package inbox

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/wait"
)

// held is the deliveries in hand: their number bounds what is asked of the
// broker, and all of them are kept from being redelivered.
type held struct {
	limit    int
	maxBytes int
	freed    chan struct{} // has a value after a delivery was settled

	mu    sync.Mutex
	all   map[jetstream.Msg]*delivery
	bytes int
}

// maxHeldBytes bounds the payloads in hand, and maxPullBytes what the broker
// may send ahead of them: no message can be larger than that.
const (
	maxHeldBytes = 128 << 20
	maxPullBytes = 64 << 20
)

func newHeld(limit int) *held {
	return &held{
		limit: limit, maxBytes: maxHeldBytes,
		freed: make(chan struct{}, 1), all: make(map[jetstream.Msg]*delivery, limit),
	}
}

func (h *held) add(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[d.msg] = d
	h.bytes += len(d.msg.Data())
}

// remove returns false for a delivery that is no longer held.
func (h *held) remove(d *delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.all[d.msg]; !ok {
		return false
	}
	delete(h.all, d.msg)
	h.bytes -= len(d.msg.Data())
	wait.Signal(h.freed)
	return true
}

// waitForRoom returns how many deliveries to ask for, once that is half of the
// limit, because small pulls are dear. It returns zero when ctx is done.
func (h *held) waitForRoom(ctx context.Context) (room int) {
	h.wait(ctx, func() bool {
		room = h.limit - len(h.all)
		return room > 0 && room >= h.limit/2
	})
	if ctx.Err() != nil {
		return 0
	}
	return room
}

// waitForBytes returns once the payloads in hand are below their limit, or ctx
// is done.
func (h *held) waitForBytes(ctx context.Context) {
	h.wait(ctx, func() bool { return h.bytes < h.maxBytes })
}

// wait returns once cond, which reads h under its lock, is true or ctx is done.
func (h *held) wait(ctx context.Context, cond func() bool) {
	for ctx.Err() == nil {
		h.mu.Lock()
		ok := cond()
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-h.freed:
		case <-ctx.Done():
		}
	}
}

func (h *held) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all) == 0
}

func (h *held) list() []*delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	ds := make([]*delivery, 0, len(h.all))
	for _, d := range h.all {
		ds = append(ds, d)
	}
	return ds
}

// keep tells the broker, until ctx is done, that what is held is being worked
// on. An error needs no answer: the message is then redelivered, to the inbox.
func (h *held) keep(ctx context.Context, every time.Duration, ackFailed func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, d := range h.list() {
			if time.Since(d.arrived) < every/2 {
				continue // it has nearly all of its AckWait before it
			}
			err := d.msg.InProgress()
			if err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) { // settled since list
				ackFailed()
			}
		}
	}
}
