package inbox

import (
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// teachUUID lets conn send a uuid.UUID, such as Message.ID, as the 16 bytes that
// it is. By itself pgx makes a string of it, fails to send that, and makes bytes
// of the string: 21 allocations, and some 5 % of what a worker does for a message
// whose handler inserts one row.
func teachUUID(conn *pgx.Conn) {
	const done = "jetbox.uuid"
	if conn.PgConn().CustomData()[done] != nil {
		return
	}
	conn.PgConn().CustomData()[done] = true
	types := conn.TypeMap()
	types.TryWrapEncodePlanFuncs = slices.Insert(types.TryWrapEncodePlanFuncs, 0, pgtype.TryWrapEncodePlanFunc(pgxuuid.TryWrapUUIDEncodePlan))
}
