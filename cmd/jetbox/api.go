package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/internal/api"
	"github.com/jetboxhq/jetbox/internal/daemon"
)

type apiFlags struct {
	DefaultSubject string `placeholder:"SUBJECT" help:"For a job that names none (JETBOX_DEFAULT_SUBJECT)."`
	InsecureListen bool   `help:"Let everyone who reaches the address in, without a token."`
}

// jobSubject is what jetbox.outbox takes: a wildcard is no subject of a message.
var jobSubject = regexp.MustCompile(`^[A-Za-z0-9-][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+){0,15}$`)

// subject is that of a job which names none. A wrong one would fail every such job.
func (f apiFlags) subject(env environment) (string, error) {
	subject := env.or(f.DefaultSubject, "JETBOX_DEFAULT_SUBJECT")
	if subject != "" && (len(subject) > 200 || !jobSubject.MatchString(subject)) {
		return "", fmt.Errorf("--default-subject (or JETBOX_DEFAULT_SUBJECT): %q is not 1 to 16 tokens of letters, digits, dash and underscore; example: jobs.default", subject)
	}
	return subject, nil
}

type apiCommand struct {
	daemonFlags
	apiFlags
}

func (c apiCommand) Run(ctx context.Context, w world) error {
	s := c.settings(w)
	db, err := c.databaseFlags.config(s.env, "api")
	s.note(err)
	s.checkAPI(c.apiFlags)
	if err := found(s.mistakes...); err != nil {
		return err
	}
	ln, err := s.start(ctx)
	if err != nil {
		return err
	}
	d, err := s.newDoor(ctx, c.apiFlags, db, ln.Addr())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer d.pool.Close()
	return s.serve(ctx, ln, []daemon.Part{{Name: "api", Ready: d.api.Ready}}, gate{db.ConnConfig, s.log, d})
}

func (s *settings) checkAPI(f apiFlags) {
	subject, err := f.subject(s.env)
	s.note(err)
	s.subject = subject
}

// door is the jobs API on an address.
type door struct {
	api  *api.API
	pool *pgxpool.Pool
	addr net.Addr
	open bool // to everyone who reaches addr, while there are no tokens
}

// newDoor returns the API, and has serve mount it.
func (s *settings) newDoor(ctx context.Context, f apiFlags, db *pgxpool.Config, addr net.Addr) (*door, error) {
	db = db.Copy()
	db.MaxConns = api.MaxConns
	pool, err := pgxpool.NewWithConfig(ctx, db)
	if err != nil {
		return nil, err
	}
	d := &door{pool: pool, addr: addr, open: f.InsecureListen || onlyLocal(addr)}
	cfg := api.Config{
		DefaultSubject: s.subject,
		Consumers:      []string{cmp.Or(s.worker.Consumer, "worker")},
		Open:           d.open, AnyHost: f.InsecureListen, Version: version(), Logger: s.log,
	}
	if d.api, err = api.New(pool, cfg); err != nil {
		pool.Close()
		return nil, err
	}
	s.api = d.api
	return d, nil
}

// Run refuses an address that others reach while no token keeps them out.
func (d *door) Run(ctx context.Context) error {
	if !d.open {
		err := d.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return d.checkTokens(ctx, c.Conn()) })
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return d.api.Run(ctx)
}

func (d *door) checkTokens(ctx context.Context, conn *pgx.Conn) error {
	has, err := api.HasTokens(ctx, conn)
	if err != nil || has {
		return err
	}
	return mistakes{fmt.Errorf("HTTP_ADDR: %s is not only for this machine and the jobs API has no tokens: "+
		"run jetbox token create NAME, listen on 127.0.0.1, or add --insecure-listen", d.addr)}
}

func onlyLocal(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
