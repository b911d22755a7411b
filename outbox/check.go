package outbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jetboxhq/jetbox/internal/wire"
)

// checkSubject repeats the table's CHECK: a row that its owner slipped past it
// could otherwise delete a stream ($JS.API…) or close our connection (too long).
func checkSubject(s string) error {
	if s == "" || len(s) > 200 || s[0] == '$' || s[0] == '_' {
		return errors.New("subject is empty, longer than 200 bytes or starts with $ or _")
	}
	tokens, length := 1, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && length > 0:
			tokens, length = tokens+1, 0
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			length++
		default:
			return errors.New("subject is not dotted tokens of letters, digits, dash and underscore")
		}
	}
	if length == 0 || tokens > 16 {
		return errors.New("subject has an empty token or more than 16 tokens")
	}
	return nil
}

// checkHeader repeats the table's rules for a header, for the same reason: the
// broker acts on some names, and the client takes a status for the broker's word.
func checkHeader(name, value string) error {
	switch lower := strings.ToLower(name); {
	case wire.Reserved(name), lower == "status", lower == "description":
		return fmt.Errorf("header %q is reserved for the broker and jetbox", name)
	case name == "" || strings.ContainsFunc(name, notToken):
		return fmt.Errorf("header name %q is not an HTTP token", name)
	case strings.ContainsFunc(value, isControl):
		return fmt.Errorf("header %q holds a control character", name)
	}
	return nil
}

func checkKey(key string) error {
	if strings.ContainsFunc(key, isControl) {
		return errors.New("key holds a control character")
	}
	return nil
}

func notToken(c rune) bool {
	alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

func isControl(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
