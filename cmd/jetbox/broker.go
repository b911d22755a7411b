package main

import (
	"errors"
	"net/url"
	"strings"

	"github.com/jetboxhq/jetbox/internal/natsconn"
)

type natsFlags struct {
	NATSURL   string `name:"nats-url" placeholder:"URL" help:"NATS servers, with commas (NATS_URL; default nats://127.0.0.1:4222)."`
	NATSCreds string `name:"nats-creds" placeholder:"FILE" help:"Credentials file (NATS_CREDS)."`
	NATSNKey  string `name:"nats-nkey" placeholder:"FILE" help:"File with an nkey seed (NATS_NKEY)."`
	NATSUser  string `name:"nats-user" help:"User; the password comes from NATS_PASSWORD or NATS_PASSWORD_FILE (NATS_USER)."`
	NATSCA    string `name:"nats-ca" placeholder:"FILE" help:"Certificates to trust (NATS_CA)."`
	NATSCert  string `name:"nats-cert" placeholder:"FILE" help:"Client certificate (NATS_CERT)."`
	NATSKey   string `name:"nats-key" placeholder:"FILE" help:"Its private key (NATS_KEY)."`
}

func (f natsFlags) named(env environment) bool {
	return f.NATSURL != "" || env["NATS_URL"] != "" || env["NATS_URL_FILE"] != ""
}

func (f natsFlags) config(env environment) (natsconn.Config, error) {
	c := natsconn.Config{
		URL:   f.NATSURL,
		Creds: env.or(f.NATSCreds, "NATS_CREDS"),
		NKey:  env.or(f.NATSNKey, "NATS_NKEY"),
		User:  env.or(f.NATSUser, "NATS_USER"),
		CA:    env.or(f.NATSCA, "NATS_CA"),
		Cert:  env.or(f.NATSCert, "NATS_CERT"),
		Key:   env.or(f.NATSKey, "NATS_KEY"),
	}
	var errs [4]error
	if c.URL == "" {
		c.URL, errs[0] = env.secret("NATS_URL")
	} else if holdsLogin(c.URL) {
		errs[0] = errors.New("--nats-url holds a password or token, which everyone on this machine can see in ps: put it in NATS_URL, or use --nats-creds FILE")
	}
	c.Password, errs[1] = env.secret("NATS_PASSWORD")
	c.Token, errs[2] = env.secret("NATS_TOKEN")
	errs[3] = c.Validate()
	return c, errors.Join(errs[:]...)
}

// holdsLogin is careful with what it cannot read: an @ ends a log-in.
func holdsLogin(servers string) bool {
	for server := range strings.SplitSeq(servers, ",") {
		u, err := url.Parse(server)
		if strings.Contains(server, "@") && (err != nil || u.User != nil || u.Host == "") {
			return true
		}
	}
	return false
}
