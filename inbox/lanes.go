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

// maxBatchBytes bounds the payloads of one batch.
const maxBatchBytes = 16 << 20

// take waits for a delivery in lane i and returns it with what else has arrived
// there, at most limit. It returns none once done is closed.
func (l *lanes) take(done <-chan struct{}, i, limit int) []*delivery {
	var d *delivery
	select {
	case d = <-l.keyed[i]:
	case d = <-l.keyless:
	case <-done:
		return nil
	}
	batch := []*delivery{d}
	for bytes := len(d.msg.Data()); len(batch) < limit && bytes < maxBatchBytes; bytes += len(d.msg.Data()) {
		select {
		case d = <-l.keyed[i]:
		case d = <-l.keyless:
		default:
			return batch
		}
		batch = append(batch, d)
	}
	return batch
}

// empty returns what nobody has taken.
func (l *lanes) empty() (rest []*delivery) {
	for _, c := range append(slices.Clone(l.keyed), l.keyless) {
		for len(c) > 0 {
			select {
			case d := <-c:
				rest = append(rest, d)
			default: // a lane was faster
			}
		}
	}
	return rest
}
