package inbox

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/wire"
)

var functionName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

// ErrFunction reports a SQL function that is missing, of the wrong kind, or not
// to be called by the worker's role.
var ErrFunction = errors.New("SQL function")

// SQLFunction processes messages whose subject matches with a function in the
// database: function(m jetbox.message), called for a whole batch in one
// statement. Its effects happen exactly once; what it returns is the result.
// The worker refuses to start unless the function exists and it may call it.
func SQLFunction(subject, function string) Handler {
	return SQLFunctionAs("", subject, function)
}

// SQLFunctionAs is SQLFunction, called with the rights of role instead of the
// worker's, which only the worker's own statements keep. The worker's login must
// be a member of role.
//
// It keeps an honest function from what it has no business with. Postgres lets
// any function RESET ROLE: one that is found in another role than it was given
// fails, but one that goes back in time is not found. Against that, make the
// function SECURITY DEFINER, where Postgres refuses to change the role.
func SQLFunctionAs(role, subject, function string) Handler {
	return Handler{
		subject: subject,
		decode:  checkText,
		fences:  true,
		prepare: func(ctx context.Context, db beginner) (setFunc, error) {
			c, err := newSQLCall(ctx, db, role, function)
			return c.run, err
		},
	}
}

// functionSQL finds a function as a call would, by the search_path where name
// has no schema.
const functionSQL = `
SELECT p.oid::regproc::text, p.prorettype = 'void'::regtype, p.proretset OR p.prokind <> 'f',
	has_function_privilege(p.oid, 'EXECUTE'), current_user
FROM (SELECT to_regprocedure($1 || '(jetbox.message)') AS oid) f LEFT JOIN pg_proc p ON p.oid = f.oid`

// sqlCall is a statement that calls a function for a set of messages, and whose
// rights it has, if not the worker's.
type sqlCall struct{ sql, role, worker string }

func newSQLCall(ctx context.Context, db beginner, role, function string) (c sqlCall, err error) {
	if !functionName.MatchString(function) {
		return c, fmt.Errorf("%w %q: want name or schema.name", ErrFunction, function)
	}
	c.role = role
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if c.worker, err = allowedAs(ctx, tx, role, function); err != nil {
			return err
		}
		c.sql, err = findFunction(ctx, tx, function)
		return err
	})
	return c, err
}

// allowedAs lets tx go on as role, and says who it was.
func allowedAs(ctx context.Context, tx pgx.Tx, role, function string) (worker string, err error) {
	if role == "" {
		return "", nil
	}
	err = tx.QueryRow(ctx, setRoleSQL, role, true).Scan(&worker, nil)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		err = fmt.Errorf("%w %s, role %s: %s: GRANT the role TO the worker's login", ErrFunction, function, role, e.Message)
	}
	return worker, err
}

func findFunction(ctx context.Context, tx pgx.Tx, function string) (string, error) {
	var name *string
	var void, set, allowed *bool
	var user string
	err := tx.QueryRow(ctx, functionSQL, function).Scan(&name, &void, &set, &allowed, &user)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "42501" {
		return "", fmt.Errorf("%w %s, as role %s: %s: GRANT USAGE ON that schema", ErrFunction, function, user, e.Message)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("look up function %s: %w", function, err)
	case name == nil:
		return "", fmt.Errorf("%w %s(jetbox.message) does not exist", ErrFunction, function)
	case *set:
		return "", fmt.Errorf("%w %s does not return a single value", ErrFunction, function)
	case !*allowed:
		return "", fmt.Errorf("%w %s: role %s may not call it: GRANT EXECUTE ON FUNCTION %[2]s(jetbox.message) TO %[3]s", ErrFunction, function, user)
	}
	call := *name + "(" + messageSQL + ")"
	if *void {
		return "SELECT CASE WHEN " + call + " IS NULL THEN NULL::text END" + setSQL, nil
	}
	return "SELECT to_json(" + call + ")::text" + setSQL, nil
}

const messageSQL = `ROW(id, subject, nullif(key, ''), headers::json, payload::json, bytes,
	nullif(content_type, ''), attempt)::jetbox.message`

// setSQL has the messages in order, and OFFSET 0 keeps the call above that: the
// rows that arrive before an error tell whose error it is.
const setSQL = `
FROM (
	SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::int[])
		WITH ORDINALITY AS m (id, subject, key, headers, payload, bytes, content_type, attempt, n)
	ORDER BY n OFFSET 0
) m`

// run calls the function for all of ds, or for limit at a time with a savepoint
// after each: all of that travels at once, and the server stops at the first
// error.
func (c sqlCall) run(ctx context.Context, tx pgx.Tx, ds []*delivery, limit int) error {
	if err := c.prepare(ctx, tx); err != nil {
		return err
	}
	var b pgx.Batch
	for from := 0; from < len(ds); from += limit {
		if err := c.queue(&b, ds[from:min(from+limit, len(ds))], from); err != nil {
			return err
		}
		if len(ds) > limit {
			b.Queue(savepointSQL)
		}
	}
	err := tx.SendBatch(ctx, &b).Close()
	if _, told := errors.AsType[*memberError](err); err != nil && !told && len(ds) > limit {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	return err
}

// prepare keeps the statement where an error does not take it out of pgx' cache,
// if the pool's connections may have prepared statements at all.
func (c sqlCall) prepare(ctx context.Context, tx pgx.Tx) error {
	if tx.Conn().Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return nil
	}
	_, err := tx.Prepare(ctx, c.sql, c.sql)
	return err
}

// queue asks for a call with ds, of which the first is the set's number from. An
// error needs no way back to the worker's role: it undoes the change with
// everything else.
func (c sqlCall) queue(b *pgx.Batch, ds []*delivery, from int) error {
	args, err := messageArgs(ds)
	if err != nil {
		return err
	}
	if c.role != "" {
		b.Queue(setRoleSQL, c.role, true)
	}
	b.Queue(c.sql, args...).Query(func(rows pgx.Rows) error { return readResults(rows, ds, from) })
	if c.role == "" {
		return nil
	}
	// For the session: what a function set for that itself would outlive the
	// transaction.
	b.Queue(setRoleSQL, c.worker, false).QueryRow(func(row pgx.Row) error {
		var after string
		err := row.Scan(&after, nil)
		if err == nil && after != c.role {
			err = Permanent(fmt.Errorf("the function changed its role from %s to %s", c.role, after))
		}
		return err
	})
	return nil
}

// readResults notes the results of a call. An error comes after the rows of the
// messages before the one that it is about.
func readResults(rows pgx.Rows, ds []*delivery, from int) error {
	n := 0
	var result *string
	_, err := pgx.ForEachRow(rows, []any{&result}, func() (err error) {
		ds[n].result, err = checkResult(result)
		n++
		return err
	})
	if _, ok := errors.AsType[*pgconn.PgError](err); ok && n < len(ds) {
		err = &memberError{from, from + n, err}
	}
	return err
}

// setRoleSQL changes who a transaction is, for good or until its end, and says
// who it was.
const setRoleSQL = `SELECT current_user, set_config('role', $1, $2)`

func checkResult(result *string) (*string, error) {
	if result != nil && len(*result) > maxResult {
		return nil, Permanent(fmt.Errorf("result of %d bytes is larger than %d", len(*result), maxResult))
	}
	return result, nil
}

// checkText refuses what only another publisher sends: Postgres would refuse the
// whole set for it, and not say because of whom.
func checkText(d *delivery) (any, error) {
	switch {
	case !isText(d.env.Key):
		return nil, errNotText("header " + wire.Key)
	case !isText(d.env.ContentType):
		return nil, errNotText("header " + wire.ContentType)
	}
	return nil, nil
}

// isText says whether Postgres takes s for a text.
func isText(s string) bool { return deadletter.Text(s) == s }

func errNotText(what string) error {
	return fmt.Errorf("its %s is not text: it has to be UTF-8 without NUL", what)
}

func messageArgs(ds []*delivery) ([]any, error) {
	n := len(ds)
	ids := make([]pgtype.UUID, n)
	subjects, keys, types := make([]string, n), make([]string, n), make([]string, n)
	headers, payloads := make([]*string, n), make([]*string, n)
	raw := make([][]byte, n)
	attempts := make([]int, n)
	for i, d := range ds {
		var err error
		if headers[i], err = deadletter.HeaderText(d.env.Headers); err != nil {
			return nil, fmt.Errorf("headers: %w", err)
		}
		ids[i], attempts[i] = d.id(), d.attempt
		subjects[i], keys[i], types[i] = d.msg.Subject(), d.env.Key, d.env.ContentType
		payloads[i], raw[i] = deadletter.SplitPayload(d.env.ContentType, d.msg.Data())
	}
	return []any{ids, subjects, keys, headers, payloads, raw, types, attempts}, nil
}
