package inbox

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

var functionName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

var errFunction = errors.New("SQL function")

// SQLFunction processes messages whose subject matches with a function in the
// database: function(m jetbox.message), called for a whole batch in one
// statement. Its effects happen exactly once; what it returns is the result.
// The worker refuses to start unless the function exists and it may call it.
func SQLFunction(subject, function string) Handler {
	return Handler{
		subject: subject,
		decode:  func(*delivery) (any, error) { return nil, nil },
		prepare: func(ctx context.Context, db *pgxpool.Pool) (setFunc, error) {
			sql, err := callSQL(ctx, db, function)
			return sqlCall(sql).run, err
		},
	}
}

// functionSQL finds a function as a call would, by the search_path where name
// has no schema.
const functionSQL = `
SELECT p.oid::regproc::text, p.prorettype = 'void'::regtype, p.proretset OR p.prokind <> 'f',
	has_function_privilege(p.oid, 'EXECUTE')
FROM (SELECT to_regprocedure($1 || '(jetbox.message)') AS oid) f LEFT JOIN pg_proc p ON p.oid = f.oid`

// callSQL returns the statement that calls function for a set of messages.
func callSQL(ctx context.Context, db *pgxpool.Pool, function string) (string, error) {
	if !functionName.MatchString(function) {
		return "", fmt.Errorf("%w %q: want name or schema.name", errFunction, function)
	}
	var name *string
	var void, set, allowed *bool
	if err := db.QueryRow(ctx, functionSQL, function).Scan(&name, &void, &set, &allowed); err != nil {
		return "", fmt.Errorf("look up function %s: %w", function, err)
	}
	switch {
	case name == nil:
		return "", fmt.Errorf("%w %s(jetbox.message) does not exist", errFunction, function)
	case *set:
		return "", fmt.Errorf("%w %s does not return a single value", errFunction, function)
	case !*allowed:
		return "", fmt.Errorf("%w %s: this role may not EXECUTE it", errFunction, function)
	}
	call := *name + "(" + messageSQL + ")"
	if *void {
		return "SELECT CASE WHEN " + call + " IS NULL THEN NULL::text END" + setSQL, nil
	}
	return "SELECT to_json(" + call + ")::text" + setSQL, nil
}

const messageSQL = `ROW(id, subject, nullif(key, ''), headers::json, payload::json, bytes,
	nullif(content_type, ''), attempt)::jetbox.message`

const setSQL = `
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::int[])
	WITH ORDINALITY AS m (id, subject, key, headers, payload, bytes, content_type, attempt, n)
ORDER BY n`

// sqlCall is a statement that callSQL made.
type sqlCall string

func (c sqlCall) run(ctx context.Context, tx pgx.Tx, ds []*delivery) error {
	args, err := messageArgs(ds)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, string(c), args...)
	if err != nil {
		return err
	}
	results, err := pgx.CollectRows(rows, pgx.RowTo[*string])
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
