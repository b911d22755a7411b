package natsconn_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// operator signs an account, and the account signs users, as nsc does.
type operator struct {
	t             *testing.T
	key, account  nkeys.KeyPair
	accountClaims string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{t: t, key: keyPair(t, nkeys.CreateOperator), account: keyPair(t, nkeys.CreateAccount)}
	o.accountClaims = o.sign(jwt.NewAccountClaims(public(t, o.account)), o.key)
	return o
}

func keyPair(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	key, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(t *testing.T, key nkeys.KeyPair) string {
	t.Helper()
	text, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (o *operator) sign(claims jwt.Claims, by nkeys.KeyPair) string {
	o.t.Helper()
	text, err := claims.Encode(by)
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// credentials writes the file of a user whose time ends at end.
func (o *operator) credentials(end time.Time) (file string) {
	o.t.Helper()
	user := keyPair(o.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public(o.t, user))
	claims.Expires = end.Unix()
	seed, err := user.Seed()
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(o.sign(claims, o.account), seed)
	if err != nil {
		o.t.Fatal(err)
	}
	file = filepath.Join(o.t.TempDir(), "user.creds")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return file
}

// serve starts a server that knows this operator and its account.
func (o *operator) serve() (url string) {
	o.t.Helper()
	claims := jwt.NewOperatorClaims(public(o.t, o.key))
	accounts := &server.MemAccResolver{}
	if err := accounts.Store(public(o.t, o.account), o.accountClaims); err != nil {
		o.t.Fatal(err)
	}
	return testenv.OwnNATS(o.t, func(opts *server.Options) {
		opts.JetStream = false
		opts.TrustedOperators, opts.AccountResolver = []*jwt.OperatorClaims{claims}, accounts
	}).URL()
}

func TestDial_LogsInWithACredentialsFile(t *testing.T) {
	t.Parallel()
	ours, theirs := newOperator(t), newOperator(t)
	url, later := ours.serve(), time.Now().Add(time.Hour)
	for name, tt := range map[string]struct{ file, want string }{
		"ours":     {ours.credentials(later), ""},
		"another":  {theirs.credentials(later), "Authorization Violation"},
		"old":      {ours.credentials(time.Now().Add(-time.Minute)), "Authorization Violation"},
		"no creds": {"", "Authorization Violation"},
		"garbage":  {file(t, 0o600), "no nkey seed found"},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := natsconn.Config{URL: url, Creds: tt.file}.Dial("test", "")
			if err == nil {
				nc.Close()
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial = %v, want %q", err, tt.want)
			}
		})
	}
}
