package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// pass is one try at a batch in one transaction. A call that fails is undone to
// the last savepoint, and what that undid runs again without it: so a message
// that fails costs its neighbours little. Where a call of many messages does not
// say which of them failed, each half runs by itself.
type pass struct {
	tx   pgx.Tx
	call caller
	at   *atomic.Pointer[group] // what runs, for whoever is left when it never returns

	limit int // of messages between two savepoints

	todo   []*group // nil asks for a savepoint
	ran    []*group
	safe   int // how many of ran no later failure undoes
	failed []*delivery
}

const (
	savepointSQL = `SAVEPOINT jetbox`
	undoSQL      = `ROLLBACK TO SAVEPOINT jetbox`
)

// run calls handlers until all is done, or until it has done something and
// enough says that the rest has to wait. An error has ended the transaction.
func (p *pass) run(ctx context.Context, enough func() bool) error {
	for len(p.todo) > 0 && (len(p.ran)+len(p.failed) == 0 || !enough()) {
		g := p.todo[0]
		p.todo = p.todo[1:]
		if err := p.step(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) step(ctx context.Context, g *group) error {
	if g == nil {
		return p.save(ctx)
	}
	if g.guilty && len(g.ds) > 1 {
		p.todo = append(g.halves(), p.todo...)
		return nil
	}
	err := p.try(g)
	switch {
	case err == nil:
		p.ran = append(p.ran, g)
		if g.fenced(p.limit) {
			p.safe = len(p.ran)
		}
		return nil
	case ctx.Err() != nil || p.lost(err):
		return err
	}
	return p.undo(ctx, g, err)
}

// try runs g's handler on copies: it may be left behind with them.
func (p *pass) try(g *group) (err error) {
	g.own = copies(g.ds)
	if g.again { // the first run may have changed the payloads
		for _, d := range g.own {
			if d.payload, err = d.handler.decode(d); err != nil {
				return Permanent(err)
			}
		}
	}
	p.at.Store(g)
	if err = runHandler(p.call, p.tx, g.handler, g.own, p.limit); err == nil {
		p.at.Store(nil)
	}
	return err
}

// errMoved reports a call that failed before the last savepoint it made.
var errMoved = errors.New("after a savepoint")

// lost reports an error that no savepoint can undo.
func (p *pass) lost(err error) bool {
	conn := p.tx.Conn()
	return conn.IsClosed() || conn.PgConn().TxStatus() == 'I' || transient(err) || errors.Is(err, errMoved)
}

// undo takes back what ran since the savepoint, to run again without g.
func (p *pass) undo(ctx context.Context, g *group, cause error) error {
	if err := p.exec(ctx, undoSQL); err != nil {
		return errors.Join(cause, err)
	}
	p.at.Store(nil) // it has been dealt with
	if e, told := errors.AsType[*memberError](cause); told && e.kept > 0 {
		p.ran = append(p.ran, g.head(e.kept))
		p.safe = len(p.ran)
	}
	p.limit = min(p.limit, careful)
	redo := slices.Clone(p.ran[p.safe:])
	for _, r := range redo {
		r.again = true
	}
	p.ran = p.ran[:p.safe]
	if g.other != nil {
		g.other.guilty = false
	}
	rest, culprit := g.without(cause)
	if culprit != nil {
		culprit.failure = cause
		p.failed = append(p.failed, culprit)
	}
	p.todo = slices.Concat(redo, []*group{nil}, rest, p.todo)
	return nil
}

// save moves the savepoint to here.
func (p *pass) save(ctx context.Context) error {
	if p.safe == len(p.ran) {
		return nil // it is here
	}
	p.safe = len(p.ran)
	return p.exec(ctx, savepointSQL)
}

func (p *pass) exec(ctx context.Context, sql string) error {
	if _, err := p.tx.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// group is what one call of a handler gets.
type group struct {
	handler *Handler
	ds      []*delivery
	own     []*delivery // copies of ds, as the latest run left them
	again   bool        // not the first run

	guilty bool   // holds what failed in a larger group
	other  *group // that is innocent if this one fails
}

// fenced says whether a call of g leaves a savepoint behind it.
func (g *group) fenced(limit int) bool { return g.handler.fences && len(g.ds) > limit }

// without returns what is to run of g after a call that failed with cause, and
// the message whose failure it was, if that is known.
func (g *group) without(cause error) (rest []*group, culprit *delivery) {
	e, told := errors.AsType[*memberError](cause)
	switch {
	case told:
		return g.except(e.kept, e.index), g.own[e.index]
	case len(g.ds) == 1:
		return nil, g.own[0]
	case errors.Is(cause, errOneByOne):
		for i := range g.ds {
			rest = append(rest, g.part(i, i+1))
		}
		return rest, nil
	}
	return g.halves(), nil
}

// except is what g's first kept messages leave to run, without the one at index.
// A pipeline told nothing about those after it: they run in two parts, so that a
// message runs few times even where all fail.
func (g *group) except(kept, index int) (rest []*group) {
	before, after := g.ds[kept:index], g.ds[index+1:]
	parts := filled(slices.Concat(before, after))
	if g.handler.run != nil {
		half := (len(after) + 1) / 2
		parts = filled(before, after[:half], after[half:])
	}
	for _, ds := range parts {
		rest = append(rest, nil, &group{handler: g.handler, ds: ds, again: true})
	}
	return rest
}

// suspects are what of g may have done what ended its transaction.
func (g *group) suspects(cause error) *group {
	if e, told := errors.AsType[*memberError](cause); told {
		return g.part(e.index, e.index+1)
	}
	if g.handler.streak != nil {
		g.handler.streak.lose() // to tell more the next time
	}
	return g
}

// head is what ran of g before a savepoint.
func (g *group) head(n int) *group {
	return &group{handler: g.handler, ds: g.ds[:n], own: g.own[:n]}
}

// halves are g in two. If nothing fails in the first, the second is guilty.
func (g *group) halves() []*group {
	half := len(g.ds) / 2
	a, b := g.part(0, half), g.part(half, len(g.ds))
	a.other, b.guilty = b, true
	return []*group{a, nil, b, nil}
}

// part is a group of its own.
func (g *group) part(from, to int) *group {
	return &group{handler: g.handler, ds: g.ds[from:to], again: true}
}

// memberError tells which message of a call has failed, and how many there are
// before the last savepoint that the call made.
type memberError struct {
	kept, index int
	error
}

func (e *memberError) Unwrap() error { return e.error }

// plan orders ds into calls of at most limit messages, or of any number where the
// handler fences: as few as it takes for handlers that take a set, while no
// message runs before an earlier one of its key.
func plan(ds []*delivery, limit int) []*group {
	var groups []*group
	open := map[*Handler]int{} // the group that a handler's messages may join
	latest := map[string]int{} // the last group with a message of the key
	for _, d := range ds {
		at, ok := open[d.handler]
		if !ok || len(groups[at].ds) >= d.handler.most(limit) || (d.env.Key != "" && at < latest[d.env.Key]) {
			at = len(groups)
			groups = append(groups, &group{handler: d.handler})
			open[d.handler] = at
		}
		groups[at].ds = append(groups[at].ds, d)
		if d.env.Key != "" {
			latest[d.env.Key] = at
		}
	}
	return groups
}

// fence puts a savepoint before each group with which more than limit messages
// would run since the last one. The transaction begins with one.
func fence(groups []*group, limit int) []*group {
	fenced := make([]*group, 0, len(groups)+1)
	since := 0
	for _, g := range groups {
		if since > 0 && since+len(g.ds) > limit {
			fenced = append(fenced, nil)
			since = 0
		}
		fenced = append(fenced, g)
		since += len(g.ds)
	}
	return fenced
}

// messages are the deliveries of groups.
func messages(groups []*group, of func(*group) []*delivery) (ds []*delivery) {
	for _, g := range groups {
		if g != nil {
			ds = append(ds, of(g)...)
		}
	}
	return ds
}
