package inbox

import (
	"hash/maphash"
	"slices"
)

// lanes spreads deliveries over workers of one kind. A key's messages share a
// lane, and so stay in order; a message without a key takes whichever is free.
type lanes struct {
	seed    maphash.Seed
	keyed   []chan *delivery
	keyless chan *delivery
}

// newLanes makes n lanes, each able to take all that is ever held, so that the
// reader waits for none of them.
func newLanes(n, capacity int) *lanes {
	l := &lanes{seed: maphash.MakeSeed(), keyless: make(chan *delivery, capacity)}
	for range n {
		l.keyed = append(l.keyed, make(chan *delivery, capacity))
	}
	return l
}

func (l *lanes) put(d *delivery) {
	if d.env.Key == "" {
		l.keyless <- d
		return
	}
	l.keyed[maphash.String(l.seed, d.env.Key)%uint64(len(l.keyed))] <- d
}

// close ends the lanes and returns what nobody has taken.
func (l *lanes) close() (rest []*delivery) {
	for _, c := range append(slices.Clone(l.keyed), l.keyless) {
		close(c)
		for d := range c {
			rest = append(rest, d)
		}
	}
	return rest
}

// maxBatchBytes bounds the payloads of one batch.
const maxBatchBytes = 16 << 20

// take waits for a delivery in lane i and returns it with what else has arrived
// there, at most limit. It returns none once the lane is closed and empty.
func (l *lanes) take(i, limit int) []*delivery {
	keyed, keyless := l.keyed[i], l.keyless
	var batch []*delivery
	for bytes := 0; len(batch) < limit && bytes < maxBatchBytes && (keyed != nil || keyless != nil); {
		d, ok := next(&keyed, &keyless, len(batch) == 0)
		if !ok {
			break
		}
		batch = append(batch, d)
		bytes += len(d.msg.Data())
	}
	return batch
}

// next receives from either channel and forgets one that is closed. Without
// wait it gives up when both are empty.
func next(a, b *chan *delivery, wait bool) (*delivery, bool) {
	for *a != nil || *b != nil {
		from, d, ok := receive(a, b, wait)
		switch {
		case ok:
			return d, true
		case from == nil:
			return nil, false
		}
		*from = nil
	}
	return nil, false
}

func receive(a, b *chan *delivery, wait bool) (from *chan *delivery, d *delivery, ok bool) {
	if !wait {
		select {
		case d, ok = <-*a:
			return a, d, ok
		case d, ok = <-*b:
			return b, d, ok
		default:
			return nil, nil, false
		}
	}
	select {
	case d, ok = <-*a:
		return a, d, ok
	case d, ok = <-*b:
		return b, d, ok
	}
}
