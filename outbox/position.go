package outbox

import (
	"fmt"
	"strconv"
	"strings"
)

// snapshot is a pg_snapshot: which transactions had finished at one moment. On
// one primary snapshots are totally ordered, so the rows that became visible
// between two of them are exactly those with xid >= xmax or xid in xip of the
// earlier one that the later one sees.
type snapshot struct {
	text string // as Postgres writes it: xmin:xmax:xip,xip,…
	xmax uint64
	xip  []uint64
}

// genesis precedes every transaction.
var genesis = snapshot{text: "1:1:", xmax: 1, xip: []uint64{}}

func parseSnapshot(text string) (snapshot, error) {
	s := snapshot{text: text, xip: []uint64{}}
	_, rest, ok := strings.Cut(text, ":")
	xmax, list, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return s, fmt.Errorf("parse snapshot %q: not xmin:xmax:xip", text)
	}
	var err error
	if s.xmax, err = strconv.ParseUint(xmax, 10, 64); err != nil {
		return s, fmt.Errorf("parse snapshot %q: %w", text, err)
	}
	for x := range strings.SplitSeq(list, ",") {
		if x == "" {
			continue
		}
		xid, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return s, fmt.Errorf("parse snapshot %q: %w", text, err)
		}
		s.xip = append(s.xip, xid)
	}
	return s, nil
}

// position is how far a relay has come. Everything visible in snap has been
// published, unless a window is open: then everything visible in prev has, and
// of what snap sees besides, the rows up to id pos.
//
// While replay is set, the next poll or the open window brings messages that
// were published before.
type position struct {
	snap   snapshot
	open   bool
	prev   snapshot
	pos    int64
	replay bool
}

// within returns the position inside the window (p, to] after id pos.
func (p position) within(to snapshot, pos int64) position {
	return position{snap: to, open: true, prev: p.snap, pos: pos, replay: p.replay}
}

// after returns the position once the window is walked to its end. A replay goes
// on: it may have begun in the middle of a window, and what was published since
// that comes with the next poll. What is new by then passes for a repeat too,
// which does no harm.
func (p position) after() position {
	return position{snap: p.snap, replay: p.replay}
}
