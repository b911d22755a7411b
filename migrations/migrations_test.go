package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/migrations"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestUp_CanBeTakenBackAndRepeated(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	conn := connect(t, db)
	up(t, db)
	first := catalog(t, conn)
	if len(first) < 100 {
		t.Fatalf("the schema has %d objects: the catalog query sees too little", len(first))
	}
	if n, err := migrations.Down(t.Context(), db, 0); err != nil || n != int(migrations.Latest()) {
		t.Fatalf("Down = %d, %v, want %d", n, err, migrations.Latest())
	}
	if left := catalog(t, conn); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	up(t, db)
	if again := catalog(t, conn); !slices.Equal(first, again) {
		t.Errorf("the second schema differs from the first:\n%v\n%v", first, again)
	}
}

func TestUp_TakesTurns(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	var g errgroup.Group
	applied := make([]int, 3)
	for i := range applied {
		g.Go(func() (err error) {
			applied[i], err = migrations.Up(t.Context(), db)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(applied)
	if want := []int{0, 0, int(migrations.Latest())}; !slices.Equal(applied, want) {
		t.Errorf("applied = %v, want %v", applied, want)
	}
}

func TestStatus_ShowsWhatIsApplied(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	up(t, db)
	if _, err := migrations.Down(t.Context(), db, 3); err != nil {
		t.Fatal(err)
	}
	list, err := migrations.Status(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(list); got != int(migrations.Latest()) {
		t.Fatalf("len(Status) = %d, want %d", got, migrations.Latest())
	}
	for _, m := range list {
		if want := m.Version <= 3; m.Applied != want {
			t.Errorf("%s applied = %t, want %t", m.File, m.Applied, want)
		}
	}
}

func TestCheck_NamesAnOlderSchemaAndTheFix(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	conn := connect(t, db)
	mention(t, migrations.Check(t.Context(), conn), "at 0", fmt.Sprint("needs ", migrations.Latest()), "jetbox migrate up")
	up(t, db)
	if err := migrations.Check(t.Context(), conn); err != nil {
		t.Errorf("Check of the latest schema = %v, want nil", err)
	}
	if _, err := migrations.Down(t.Context(), db, 7); err != nil {
		t.Fatal(err)
	}
	mention(t, migrations.Check(t.Context(), conn), "at 7", fmt.Sprint("needs ", migrations.Latest()), "jetbox migrate up")
}

func TestUp_RefusesANewerSchema(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	conn := connect(t, db)
	up(t, db)
	if _, err := conn.Exec(t.Context(), `INSERT INTO jetbox.migration (version_id, is_applied) VALUES (99, true)`); err != nil {
		t.Fatal(err)
	}
	_, upErr := migrations.Up(t.Context(), db)
	_, downErr := migrations.Down(t.Context(), db, 0)
	for _, err := range []error{upErr, downErr, migrations.Check(t.Context(), conn)} {
		mention(t, err, "at 99", fmt.Sprint("up to ", migrations.Latest()), "newer jetbox")
	}
}

// mention also checks that callers can tell a version mistake from an outage.
func mention(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, migrations.ErrVersion) {
		t.Fatalf("error = %v, want ErrVersion", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not mention %q", err, w)
		}
	}
}

func up(t *testing.T, db *pgx.ConnConfig) {
	t.Helper()
	if n, err := migrations.Up(t.Context(), db); err != nil || n != int(migrations.Latest()) {
		t.Fatalf("Up = %d, %v, want %d", n, err, migrations.Latest())
	}
}

func connect(t *testing.T, db *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) }) // the database is dropped next
	return conn
}

// catalogSQL lists what the migrations made, with the definitions and the
// rights; goose's own table is not theirs.
const catalogSQL = `
WITH relation AS (
	SELECT c.oid AS rel, c.oid::regclass AS name, relkind, relacl, reloptions, relpartbound FROM pg_class c
	WHERE c.relnamespace = 'jetbox'::regnamespace AND c.relname NOT LIKE 'migration%'
)
SELECT concat_ws(' ', 'relation', name, relkind, relacl, reloptions, pg_get_partkeydef(rel), pg_get_expr(relpartbound, rel)) FROM relation
UNION ALL
SELECT concat_ws(' ', 'column', name, attname, atttypid::regtype, attnotnull, attidentity, attacl, pg_get_expr(adbin, adrelid))
FROM relation JOIN pg_attribute ON attrelid = rel LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT concat_ws(' ', 'constraint', name, conname, pg_get_constraintdef(c.oid)) FROM relation JOIN pg_constraint c ON conrelid = rel
UNION ALL
SELECT concat_ws(' ', 'index', pg_get_indexdef(rel)) FROM relation WHERE relkind IN ('i', 'I')
UNION ALL
SELECT concat_ws(' ', 'view', name, pg_get_viewdef(rel)) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT concat_ws(' ', 'trigger', name, pg_get_triggerdef(t.oid)) FROM relation JOIN pg_trigger t ON tgrelid = rel
UNION ALL
SELECT concat_ws(' ', 'function', oid::regprocedure, proacl, pg_get_functiondef(oid)) FROM pg_proc WHERE pronamespace = 'jetbox'::regnamespace
UNION ALL
SELECT concat_ws(' ', 'type', oid::regtype, typtype) FROM pg_type WHERE typnamespace = 'jetbox'::regnamespace AND typname !~ '^_?migration'
UNION ALL
SELECT concat_ws(' ', 'schema', nspname, nspacl) FROM pg_namespace WHERE nspname = 'jetbox' AND nspacl IS NOT NULL AND nspacl::text ~ 'producer'
ORDER BY 1`

func catalog(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), catalogSQL)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// An owner that may not create roles needs none created.
func TestUp_TakesRolesThatAnAdministratorHasMade(t *testing.T) {
	t.Parallel()
	testenv.Database(t) // the roles exist from here on
	cfg := testenv.EmptyDatabase(t)
	admin, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	owner := cfg.Database + "_owner"
	for _, sql := range []string{"CREATE ROLE " + owner + " LOGIN PASSWORD 'x'", "ALTER DATABASE " + cfg.Database + " OWNER TO " + owner} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.Background()
		_, err := admin.Exec(ctx, "REASSIGN OWNED BY "+owner+" TO CURRENT_USER; DROP OWNED BY "+owner+"; DROP ROLE "+owner)
		if err := errors.Join(err, admin.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	cfg.User, cfg.Password = owner, "x"
	if n, err := migrations.Up(t.Context(), cfg); err != nil || n == 0 {
		t.Errorf("Up = %d, %v, want the schema", n, err)
	}
}
