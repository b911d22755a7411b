package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/api"
	"github.com/jetboxhq/jetbox/internal/operator"
)

type tokenCommand struct {
	Create tokenCreateCommand `cmd:"" help:"Make a token and show it, once." example:"jetbox token create shop --scope produce,read --expires 720h"`
	List   tokenListCommand   `cmd:"" help:"List tokens: their names and scopes, never themselves." example:"jetbox token list --json"`
	Revoke tokenRevokeCommand `cmd:"" help:"End a token at once." example:"jetbox token revoke shop"`
}

type tokenCreateCommand struct {
	operatorFlags
	Name    string         `arg:"" help:"Who will use it, such as shop."`
	Scope   []string       `enum:"produce,read,operate" default:"produce,read" help:"produce (make and cancel jobs), read, operate (redrive); several with commas."`
	Expires *time.Duration `help:"After how long it ends; never if not given."`
}

func (c tokenCreateCommand) Run(ctx context.Context, w world) error {
	var lifetime time.Duration
	if c.Expires != nil {
		if lifetime = *c.Expires; lifetime <= 0 {
			return mistakes{fmt.Errorf("--expires %s is not above zero", lifetime)}
		}
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		var secret string
		err := audited(ctx, conn, operator.ActionCreateToken, c.Name, func(tx pgx.Tx) (err error) {
			secret, err = api.CreateToken(ctx, tx, c.Name, c.Scope, lifetime)
			return err
		})
		if errors.Is(err, api.ErrTokenExists) || errors.Is(err, api.ErrTokenRefused) {
			return mistakes{err}
		}
		if err != nil {
			return err
		}
		return c.say(w, map[string]string{"name": c.Name, "token": secret}, secret)
	})
}

type tokenListCommand struct{ operatorFlags }

func (c tokenListCommand) Run(ctx context.Context, w world) error {
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		list, err := api.ListTokens(ctx, conn)
		if err != nil {
			return err
		}
		return show(c.operatorFlags, w, "NAME\tSCOPES\tCREATED\tEXPIRES\tREVOKED", list, func(t api.Token) string {
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", t.Name, strings.Join(t.Scopes, ","), clock(&t.CreatedAt), clock(t.ExpiresAt), clock(t.RevokedAt))
		})
	})
}

type tokenRevokeCommand struct {
	operatorFlags
	Name string `arg:"" help:"Its name."`
}

func (c tokenRevokeCommand) Run(ctx context.Context, w world) error {
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		err := audited(ctx, conn, operator.ActionRevokeToken, c.Name, func(tx pgx.Tx) error {
			return api.RevokeToken(ctx, tx, c.Name)
		})
		if errors.Is(err, api.ErrNoToken) {
			return mistakes{err}
		}
		if err != nil {
			return err
		}
		return c.say(w, map[string]string{"revoked": c.Name}, "revoked: "+c.Name)
	})
}

// audited is one transaction of what change does to a token and its line in the
// audit.
func audited(ctx context.Context, conn *pgx.Conn, action, token string, change func(pgx.Tx) error) error {
	details, err := json.Marshal(map[string]string{"token": token})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		return operator.Record(ctx, tx, operator.Action{Actor: actor(), Action: action, Details: details})
	})
}

// clock shows a time to a person.
func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
