package doctor

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// forbidden reports whether Postgres refused for want of a privilege.
func forbidden(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "42501"
}

// unseen is what remains to be said of a look that the role may not take.
func unseen(conn *pgx.Conn, what string) Finding {
	return Finding{Warning, "unseen", what + " cannot be looked at as role " + conn.Config().User, letOperate(conn)}
}

func letOperate(conn *pgx.Conn) string {
	return "GRANT jetbox_operator TO " + pgx.Identifier{conn.Config().User}.Sanitize()
}

// Schema is what migrations.Check has found, with what helps against it.
func Schema(conn *pgx.Conn, err error) Finding {
	f := Finding{Error, "schema", err.Error(), "jetbox migrate up, as the owner of the database"}
	switch {
	case forbidden(err):
		f.Fix = letOperate(conn)
	case strings.Contains(err.Error(), "use the newer jetbox"): // as migrations says: to go up leads nowhere
		f.Fix = "use the jetbox that migrated it, or a newer one, here and in every daemon"
	}
	return f
}
