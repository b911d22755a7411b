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
		decode:  func(*delivery) (any, error) { return nil, nil },
		prepare: func(ctx context.Context, db beginner) (setFunc, error) {
			sql, err := callSQL(ctx, db, role, function)
			return sqlCall{sql, role}.run, err
		},
	}
}

// functionSQL finds a function as a call would, by the search_path where name
// has no schema.
const functionSQL = `
SELECT p.oid::regproc::text, p.prorettype = 'void'::regtype, p.proretset OR p.prokind <> 'f',
	has_function_privilege(p.oid, 'EXECUTE'), current_user
FROM (SELECT to_regprocedure($1 || '(jetbox.message)') AS oid) f LEFT JOIN pg_proc p ON p.oid = f.oid`

// callSQL returns the statement by which role calls function for a set of
// messages.
func callSQL(ctx context.Context, db beginner, role, function string) (sql string, err error) {
	if !functionName.MatchString(function) {
		return "", fmt.Errorf("%w %q: want name or schema.name", ErrFunction, function)
	}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if err := allowedAs(ctx, tx, role, function); err != nil {
			return err
		}
		sql, err = findFunction(ctx, tx, function)
		return err
	})
	return sql, err
}

// allowedAs lets tx go on as role.
func allowedAs(ctx context.Context, tx pgx.Tx, role, function string) error {
	if role == "" {
		return nil
	}
	_, err := setRole(ctx, tx, role, true)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("%w %s, role %s: %s: GRANT the role TO the worker's login", ErrFunction, function, role, e.Message)
	}
	return err
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

// sqlCall is a statement that callSQL made, and who is to run it.
type sqlCall struct{ sql, role string }

func (c sqlCall) run(ctx context.Context, tx pgx.Tx, ds []*delivery) error {
	args, err := messageArgs(ds)
	if err != nil {
		return err
	}
	results, err := c.query(ctx, tx, args)
	if err != nil {
		return err
	}
	for i, d := range ds {
		if d.result, err = checkResult(results[i]); err != nil {
			return err
		}
	}
	return nil
}

// query runs the statement as its role, and goes on as the worker. An error
// needs no way back: it undoes the change of role with everything else.
func (c sqlCall) query(ctx context.Context, tx pgx.Tx, args []any) ([]*string, error) {
	if c.role == "" {
		return c.results(ctx, tx, args)
	}
	worker, err := setRole(ctx, tx, c.role, true)
	if err != nil {
		return nil, err
	}
	results, err := c.results(ctx, tx, args)
	if err != nil {
		return nil, err
	}
	// For the session: what a function set for that itself would outlive the
	// transaction.
	after, err := setRole(ctx, tx, worker, false)
	if err == nil && after != c.role {
		err = Permanent(fmt.Errorf("the function changed its role from %s to %s", c.role, after))
	}
	return results, err
}

func (c sqlCall) results(ctx context.Context, tx pgx.Tx, args []any) ([]*string, error) {
	rows, err := tx.Query(ctx, c.sql, args...)
	if err != nil {
		return nil, err
	}
	var results []*string
	var result *string
	_, err = pgx.ForEachRow(rows, []any{&result}, func() error { results = append(results, result); return nil })
	if _, ok := errors.AsType[*pgconn.PgError](err); ok { // it came after the rows before it
		err = &memberError{len(results), err}
	}
	return results, err
}

const setRoleSQL = `SELECT current_user, set_config('role', $1, $2)`

// setRole changes who tx is, for good or until its end, and says who it was.
func setRole(ctx context.Context, tx pgx.Tx, role string, local bool) (before string, err error) {
	if err := tx.QueryRow(ctx, setRoleSQL, role, local).Scan(&before, nil); err != nil {
		return "", fmt.Errorf("role %s: %w", role, err)
	}
	return before, nil
}

func checkResult(result *string) (*string, error) {
	if result != nil && len(*result) > maxResult {
		return nil, Permanent(fmt.Errorf("result of %d bytes is larger than %d", len(*result), maxResult))
	}
	return result, nil
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
