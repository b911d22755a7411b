package doctor_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
	"github.com/jetboxhq/jetbox/migrations"
)

// member returns a connection of a login that is in a role, or in none.
func member(t *testing.T, db *pgx.ConnConfig, role string) *pgx.Conn {
	t.Helper()
	login := db.Copy()
	login.User, login.Password = db.Database+"_login", "x"
	owner := connect(t, db)
	execute(t, owner, `CREATE ROLE `+login.User+` LOGIN PASSWORD 'x'`)
	t.Cleanup(func() { _, _ = owner.Exec(context.Background(), `DROP ROLE `+login.User) })
	if role != "" {
		execute(t, owner, `GRANT `+role+` TO `+login.User)
	}
	return connect(t, login)
}

func find(found []doctor.Finding, check string) doctor.Finding {
	i := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Check == check })
	if i < 0 {
		return doctor.Finding{}
	}
	return found[i]
}

func TestPostgres_GoesOnAfterWhatARoleMayNotSee(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	execute(t, connect(t, db), `ALTER TABLE jetbox.outbox DISABLE TRIGGER check_message`)
	conn := member(t, db, "jetbox_worker")
	found, err := doctor.Postgres(t.Context(), conn, doctor.Config{}, true)
	if err != nil {
		t.Fatal(err)
	}
	unseen, hidden, user := find(found, "unseen"), find(found, "hidden_transactions"), conn.Config().User
	if unseen.Level != doctor.Warning || unseen.Found != "the relay's lease cannot be looked at as role "+user || unseen.Fix != `GRANT jetbox_operator TO "`+user+`"` {
		t.Errorf("unseen = %+v, want the lease and who would see it", unseen)
	}
	if hidden.Level != doctor.Warning || hidden.Fix != `GRANT pg_read_all_stats TO "`+user+`"` {
		t.Errorf("hidden transactions = %+v, want the role that sees them", hidden)
	}
	if find(found, "trigger").Level != doctor.Error || len(checks(found)) != 3 {
		t.Errorf("found %v, want the trigger and nothing else", found)
	}
}

func TestSchema_NamesWhatHelps(t *testing.T) {
	t.Parallel()
	ahead := testenv.Database(t).Config().ConnConfig
	execute(t, connect(t, ahead), `INSERT INTO jetbox.migration (version_id, is_applied) VALUES (999, true)`)
	for want, conn := range map[string]*pgx.Conn{
		"jetbox migrate up":         connect(t, testenv.EmptyDatabase(t)),
		"use the jetbox that":       connect(t, ahead),
		"GRANT jetbox_operator TO ": member(t, testenv.Database(t).Config().ConnConfig, ""),
	} {
		err := migrations.Check(t.Context(), conn)
		if err == nil {
			t.Fatalf("Check = nil, want an error for %q", want)
		}
		if f := doctor.Schema(conn, err); f.Level != doctor.Error || !strings.HasPrefix(f.Fix, want) {
			t.Errorf("fix = %+v, want %q", f, want)
		}
	}
}

func TestPostgres_FindsADatabaseThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t).Copy()
	owner := connect(t, db)
	db.Database += "_latin"
	execute(t, owner, `CREATE DATABASE `+db.Database+` TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
	t.Cleanup(func() { _, _ = owner.Exec(context.Background(), `DROP DATABASE `+db.Database+` WITH (FORCE)`) })
	found, err := doctor.Postgres(t.Context(), connect(t, db), doctor.Config{}, false)
	if got := checks(found); err != nil || !slices.Equal(got, []string{"encoding"}) || doctor.ExitCode(found) != 2 {
		t.Errorf("found %v, %v, want the encoding", found, err)
	}
}
