package inbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/inbox"
)

// cast is an env whose worker logs in with a worker's rights and no more, and
// may act as another role.
type cast struct {
	*env
	app    string        // the role
	worker *pgxpool.Pool // that logs in
}

func newCast(t *testing.T) *cast {
	t.Helper()
	e := newEnv(t)
	c := &cast{env: e, app: "app_" + strings.ToLower(e.stream)}
	login := "login_" + strings.ToLower(e.stream)
	e.exec(fmt.Sprintf(`
		CREATE ROLE %[1]s; CREATE ROLE %[2]s LOGIN PASSWORD 'x' IN ROLE jetbox_worker, %[1]s;
		GRANT USAGE ON SCHEMA jetbox TO %[1]s;
		GRANT INSERT ON effect TO %[1]s; GRANT USAGE ON SEQUENCE effect_n_seq TO %[1]s`, c.app, login))
	t.Cleanup(func() { e.exec(fmt.Sprintf(`DROP OWNED BY %[1]s, %[2]s; DROP ROLE %[1]s, %[2]s`, c.app, login)) })
	cfg := e.db.Config()
	cfg.ConnConfig.User, cfg.ConnConfig.Password = login, "x"
	var err error
	if c.worker, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.worker.Close)
	return c
}

// function makes public.name, with an effect that tells who runs it.
func (c *cast) function(name, body, how string) {
	c.t.Helper()
	c.exec(fmt.Sprintf(`CREATE FUNCTION public.%s(m jetbox.message) RETURNS text LANGUAGE plpgsql %s AS $$ BEGIN
		INSERT INTO public.effect (message_id, note) VALUES (m.message_id, current_user);
		%s
		RETURN current_user;
	END $$`, name, how, body))
}

// runAs runs a worker whose functions act as the role.
func (c *cast) runAs(functions ...string) {
	c.t.Helper()
	var handlers []inbox.Handler
	for _, f := range functions {
		handlers = append(handlers, inbox.SQLFunctionAs(c.app, c.subject(f), "public."+f))
	}
	cfg := c.config()
	cfg.Concurrency, cfg.MaxAttempts = 1, 1
	c.startOn(c.worker, c.dial, cfg, handlers...)
}

func TestSQLFunctionAs_HasTheRightsOfItsRoleAlone(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.function("honest", "", "")
	c.function("greedy", "DELETE FROM jetbox.failed_attempt;", "")
	c.runAs("honest", "greedy")
	c.publish("honest", `1`)
	greedy := c.publish("greedy", `1`)
	c.publish("honest", `2`)
	c.eventuallySettled()
	c.wantEffects(2)
	c.wantCount(2, "results and effects of the role", `
		SELECT count(*) FROM jetbox.inbox i JOIN effect e USING (message_id) WHERE i.result #>> '{}' = $1 AND e.note = $1`, c.app)
	contains(t, "reason", c.letter(greedy).Reason, "permission denied for table failed_attempt")
}

// A function sets the role for its session, and not just for the transaction
// that the worker gave it.
func TestSQLFunctionAs_TakesTheRoleBackFromAFunctionThatKeepsIt(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.function("keeps", "PERFORM set_config('role', current_user, false);", "")
	c.runAs("keeps")
	c.publish("keeps", `1`)
	c.eventuallySettled()
	c.wantEffects(1)
	for _, conn := range c.worker.AcquireAllIdle(t.Context()) {
		var user string
		if err := conn.QueryRow(t.Context(), `SELECT current_user`).Scan(&user); err != nil || user == c.app {
			t.Errorf("the worker's connection is left with role %s, %v", user, err)
		}
		conn.Release()
	}
}

func TestSQLFunctionAs_UndoesAFunctionThatLeavesItsRole(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.function("leaves", "RESET ROLE;", "")
	c.function("definer", "RESET ROLE;", "SECURITY DEFINER")
	c.exec(fmt.Sprintf(`GRANT CREATE ON SCHEMA public TO %[1]s; ALTER FUNCTION public.definer OWNER TO %[1]s`, c.app))
	c.runAs("leaves", "definer")
	reasons := map[uuid.UUID]string{
		c.publish("leaves", `1`):  "the function changed its role from " + c.app,
		c.publish("definer", `1`): `cannot set parameter "role" within security-definer function`,
	}
	c.eventuallySettled()
	c.wantEffects(0)
	for id, want := range reasons {
		contains(t, "reason", c.letter(id).Reason, want)
	}
}

func TestSQLFunctionAs_IsRefusedAtStartWithTheMissingGrant(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.function("f", "", "")
	c.exec(`REVOKE EXECUTE ON FUNCTION public.f FROM PUBLIC; CREATE SCHEMA hidden;
		CREATE FUNCTION hidden.f(m jetbox.message) RETURNS void LANGUAGE sql AS ''`)
	for name, tt := range map[string]struct{ role, function, want string }{
		"no such role":  {"nobody_at_all", "public.f", `role "nobody_at_all" does not exist`},
		"not a member":  {"postgres", "public.f", `permission denied to set role "postgres": GRANT the role TO the worker's login`},
		"may not call":  {c.app, "public.f", "GRANT EXECUTE ON FUNCTION public.f(jetbox.message) TO " + c.app},
		"hidden schema": {c.app, "hidden.f", "permission denied for schema hidden: GRANT USAGE"},
	} {
		w, err := inbox.NewWorker(c.worker, c.dial, c.config(), inbox.SQLFunctionAs(tt.role, c.subject("f"), tt.function))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Run(t.Context()); err == nil {
			t.Errorf("%s: Run = nil", name)
		} else {
			contains(t, name, err.Error(), tt.want)
		}
	}
}

func TestHandler_HasLimitsOfItsOwn(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	wait := func(ctx context.Context, _ inbox.Message[[]byte]) (none, error) {
		<-ctx.Done()
		return none{}, ctx.Err()
	}
	cfg := e.config()
	cfg.HandlerTimeout = time.Hour
	e.start(cfg, inbox.Handle(e.subject("slow"), wait).Limit(inbox.Limits{MaxAttempts: 2, Timeout: time.Second}))
	id := e.publish("slow", "")
	e.eventuallySettled()
	contains(t, "reason", e.letter(id).Reason, "attempt 2 of 2", "handler timeout after 1s")
	_, err := inbox.NewWorker(e.db, e.dial, cfg, inbox.Handle("a", wait).Limit(inbox.Limits{MaxAttempts: -1, Timeout: -1}))
	if err == nil {
		t.Fatal("NewWorker took limits below zero")
	}
	contains(t, "error", err.Error(), "handler for a: MaxAttempts -1 is negative", "handler for a: Timeout -1ns is not between 0 and a day")
}
