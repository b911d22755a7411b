// Package natsconn opens the NATS connections of this binary, all alike.
//
// A connection keeps trying for ever once it is made, and never buffers what is
// published while it is away: a buffer would reorder. It does not retry the
// first dial, so that the caller hears at once what is wrong. No error of this
// package shows a password, not even one that came inside a URL.
package natsconn

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Config says where NATS is and who we are. The zero value is the server on
// this machine without credentials. The names are those of the nats CLI.
type Config struct {
	// URL is one server or several with commas. Empty means nats://127.0.0.1:4222.
	URL string
	// Creds is a credentials file. Empty means none.
	Creds string
	// NKey is a file that holds an nkey seed. Empty means none.
	NKey string
	// User goes with Password. Empty means none.
	User string
	// Password goes with User. Empty means none.
	Password string
	// Token is a shared secret. Empty means none.
	Token string
	// CA is a file of trusted certificates. Empty means the system's.
	CA string
	// Cert is a client certificate file and goes with Key. Empty means none.
	Cert string
	// Key is the private key file of Cert. Empty means none.
	Key string
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	return errors.Join(
		checkURL(c.url()),
		c.checkPairs(),
		checkFile("NATS_CREDS", c.Creds, true),
		checkFile("NATS_NKEY", c.NKey, true),
		checkFile("NATS_CA", c.CA, false),
		checkFile("NATS_CERT", c.Cert, false),
		checkFile("NATS_KEY", c.Key, true),
	)
}

// Dial connects, or says why not. Name is what the server's monitoring shows;
// replies come to subjects under inboxPrefix, so that an account's permissions
// can tell a relay from a worker. Empty means the common _INBOX.
func (c Config) Dial(name, inboxPrefix string, more ...nats.Option) (*nats.Conn, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(name),
		nats.Timeout(5 * time.Second),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
	}
	if inboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(inboxPrefix))
	}
	auth, err := c.auth()
	if err != nil {
		return nil, err
	}
	opts = append(opts, auth...)
	conn, err := nats.Connect(c.url(), append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.Redacted(), err)
	}
	return conn, nil
}

// Redacted returns the servers without user, password or token.
func (c Config) Redacted() string {
	servers := strings.Split(c.url(), ",")
	for i, s := range servers {
		servers[i] = "(not a URL)"
		if u, err := parse(s); err == nil {
			servers[i] = u.Scheme + "://" + u.Host
		}
	}
	return strings.Join(servers, ",")
}

func (c Config) url() string { return cmp.Or(c.URL, nats.DefaultURL) }

func (c Config) auth() ([]nats.Option, error) {
	var opts []nats.Option
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("NATS_NKEY: %w", err)
		}
		opts = append(opts, opt)
	}
	if c.User != "" {
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token))
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	return opts, nil
}

func (c Config) checkPairs() error {
	var errs []error
	if ways := set("NATS_CREDS", c.Creds, "NATS_NKEY", c.NKey, "NATS_USER", c.User, "NATS_TOKEN", c.Token); len(ways) > 1 {
		errs = append(errs, fmt.Errorf("%s are set, and each is a whole log-in: keep one", strings.Join(ways, " and ")))
	}
	if c.Password != "" && c.User == "" {
		errs = append(errs, errors.New("NATS_PASSWORD is set without NATS_USER"))
	}
	if (c.Cert == "") != (c.Key == "") {
		errs = append(errs, errors.New("NATS_CERT and NATS_KEY go together: set both or neither"))
	}
	return errors.Join(errs...)
}

// set returns the names whose value, the word after it, is not empty.
func set(pairs ...string) []string {
	var names []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			names = append(names, pairs[i])
		}
	}
	return names
}

// checkURL never shows the text it refuses: where a URL is broken, the password
// may be anywhere in it.
func checkURL(servers string) error {
	var errs []error
	for i, s := range strings.Split(servers, ",") {
		u, err := parse(s)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("NATS_URL: server %d is not a URL; example: nats://nats:4222 "+
				"(in a password, percent-encode what is not a letter or a digit)", i+1))
		case !known(u.Scheme):
			errs = append(errs, fmt.Errorf("NATS_URL: server %d has scheme %q, need nats, tls, ws or wss", i+1, u.Scheme))
		case u.Hostname() == "":
			errs = append(errs, fmt.Errorf("NATS_URL: server %d has no host; example: nats://nats:4222", i+1))
		}
	}
	return errors.Join(errs...)
}

// parse reads one server as nats.go does: the scheme may be left out.
func parse(server string) (*url.URL, error) {
	server = strings.TrimSpace(server)
	if !strings.Contains(server, "://") {
		server = "nats://" + server
	}
	return url.Parse(server)
}

func known(scheme string) bool {
	return scheme == "nats" || scheme == "tls" || scheme == "ws" || scheme == "wss"
}

// checkFile refuses a secret that everyone on the machine may read. The group
// may: that is how Kubernetes mounts one for a process that is not root.
func checkFile(name, path string, secret bool) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case info.IsDir():
		return fmt.Errorf("%s: %s is a directory, need a file", name, path)
	case secret && info.Mode().Perm()&0o037 != 0:
		return fmt.Errorf("%s: %s has mode %04o, so others can read the secret: chmod 600 %s",
			name, path, info.Mode().Perm(), path)
	}
	return nil
}
