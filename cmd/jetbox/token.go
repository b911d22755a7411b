package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/api"
)

type tokenCommand struct {
	Create tokenCreateCommand `cmd:"" help:"Make a token and show it, once." example:"jetbox token create shop --scope produce,read --expires 720h"`
	List   tokenListCommand   `cmd:"" help:"List tokens: their names and scopes, never themselves." example:"jetbox token list --json"`
	Revoke tokenRevokeCommand `cmd:"" help:"End a token at once." example:"jetbox token revoke shop"`
}

type tokenCreateCommand struct {
	operatorFlags
	Name    string        `arg:"" help:"Who will use it, such as shop."`
	Scope   []string      `enum:"produce,read,operate" default:"produce,read" help:"produce (make and cancel jobs), read, operate (redrive); several with commas."`
	Expires time.Duration `help:"After how long it ends; never if not given."`
}

func (c tokenCreateCommand) Run(ctx context.Context, w world) error {
	if c.Expires < 0 {
		return mistakes{fmt.Errorf("--expires %s is not above zero", c.Expires)}
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		secret, err := api.CreateToken(ctx, conn, c.Name, c.Scope, c.Expires)
		if errors.Is(err, api.ErrTokenExists) || errors.Is(err, api.ErrTokenRefused) {
			return mistakes{err}
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w.stdout, secret)
		return err
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
		err := api.RevokeToken(ctx, conn, c.Name)
		if errors.Is(err, api.ErrNoToken) {
			return mistakes{err}
		}
		return err
	})
}

// clock shows a time to a person.
func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
