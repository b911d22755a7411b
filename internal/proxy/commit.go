package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"
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
	if !IsCommit(b) {
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

// IsCommit reports whether b, as a client has written it, ends a transaction.
func IsCommit(b []byte) bool {
	return slices.ContainsFunc(commitEnds, func(end []byte) bool { return bytes.HasSuffix(b, end) })
}

// commitEnds are how pgx sends it: as a simple query of its own, when the replies
// to everything before are in, or prepared, as the last of a batch.
var commitEnds = [][]byte{
	encode(&pgproto3.Query{String: "commit"}),
	encode(&pgproto3.Bind{PreparedStatement: prepared("COMMIT")}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}),
}

// prepared is the name that pgx gives to a statement.
func prepared(sql string) string {
	digest := sha256.Sum256([]byte(sql))
	return "stmtcache_" + hex.EncodeToString(digest[:24])
}

func encode(messages ...pgproto3.FrontendMessage) (b []byte) {
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err) // none of them is too large
		}
	}
	return b
}

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
