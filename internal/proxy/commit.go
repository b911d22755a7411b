package proxy

import (
	"bytes"
	"sync/atomic"
)

// commits counts the COMMITs of Postgres clients that are to be lost.
type commits struct{ before, after, lost atomic.Int64 }

// LoseCommit breaks the connection that sends the next COMMIT: before the
// server has it, or after, when only the reply is lost.
func (p *Proxy) LoseCommit(d Direction) {
	if d == ToServer {
		p.commits.before.Add(1)
		return
	}
	p.commits.after.Add(1)
}

// KeepCommits takes back what LoseCommit has asked for and has not happened, and
// returns how many COMMITs were lost so far.
func (p *Proxy) KeepCommits() int {
	p.commits.before.Store(0)
	p.commits.after.Store(0)
	return int(p.commits.lost.Load())
}

// pass reports whether b, which a client has sent, may go on.
func (c *commits) pass(l *link, b []byte) bool {
	if !bytes.HasSuffix(b, commit) {
		return true
	}
	switch {
	case take(&c.before):
		c.lost.Add(1)
		return false
	case take(&c.after):
		c.lost.Add(1)
		l.deaf.Store(true)
	}
	return true
}

// commit is how pgx sends it: a simple query of its own, when the replies to
// everything before are in.
var commit = []byte("Q\x00\x00\x00\x0bcommit\x00")

func take(n *atomic.Int64) bool {
	for {
		v := n.Load()
		if v <= 0 {
			return false
		}
		if n.CompareAndSwap(v, v-1) {
			return true
		}
	}
}
