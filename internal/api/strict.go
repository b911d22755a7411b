package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDepth is well below where Postgres' parser gives up.
const maxDepth = 200

// parseObject reads a JSON object whose members are among known. It is strict
// where encoding/json is not: nothing is read twice, guessed or dropped. The
// members' text is kept as it came.
func parseObject(body []byte, known ...string) (map[string]json.RawMessage, error) {
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return nil, badJSON("", "the body is not a JSON object")
	}
	for name := range members {
		if !contains(known, name) {
			// The name itself could be anything.
			return nil, badJSON("", "a member is unknown; known are "+strings.Join(known, ", "))
		}
	}
	return members, nil
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// member decodes one member; it may be absent or null.
func member[T any](members map[string]json.RawMessage, name, want string) (*T, error) {
	raw, ok := members[name]
	if !ok {
		return nil, nil
	}
	var v *T
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, badJSON("/"+name, "is not "+want)
	}
	return v, nil
}

func badJSON(pointer, detail string) *Problem {
	return problem(http.StatusBadRequest, "invalid_json", "the body is not what this operation takes").at(pointer, detail)
}

// checkJSON refuses what parsers disagree about: invalid UTF-8, a byte order
// mark, names that come twice, text after the end, and great depth.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) || bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return badJSON("", "is not UTF-8, or begins with a byte order mark")
	}
	w := &walker{dec: json.NewDecoder(bytes.NewReader(body))}
	w.dec.UseNumber()
	if err := w.value(); err != nil {
		return err
	}
	if _, err := w.dec.Token(); !errors.Is(err, io.EOF) {
		return badJSON("", "text follows the JSON value")
	}
	return nil
}

// walker goes through a JSON text and knows where it is.
type walker struct {
	dec  *json.Decoder
	path []string
}

func (w *walker) bad(detail string) error {
	pointer := strings.Join(w.path, "")
	return badJSON(pointer[:min(len(pointer), 200)], detail)
}

func (w *walker) value() error {
	t, err := w.dec.Token()
	if err != nil {
		return w.bad("is not valid JSON")
	}
	d, ok := t.(json.Delim)
	switch {
	case !ok:
		return nil
	case len(w.path) >= maxDepth:
		return badJSON("", fmt.Sprintf("nests deeper than %d levels", maxDepth))
	case d == '{':
		err = w.object()
	default:
		err = w.array()
	}
	if err != nil {
		return err
	}
	if _, err := w.dec.Token(); err != nil { // the closing bracket
		return w.bad("is not valid JSON")
	}
	return nil
}

func (w *walker) object() error {
	seen := map[string]bool{}
	for w.dec.More() {
		t, err := w.dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return w.bad("is not valid JSON")
		}
		if seen[name] {
			return w.bad("has a member twice")
		}
		seen[name] = true
		if err := w.step(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) array() error {
	for i := 0; w.dec.More(); i++ {
		if err := w.step(strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) step(name string) error {
	w.path = append(w.path, "/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	defer func() { w.path = w.path[:len(w.path)-1] }()
	return w.value()
}

// parseWait reads "30s" or "30"; the longest wait is a minute.
func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, isNumber := strconv.Atoi(text); isNumber == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, problem(http.StatusBadRequest, "invalid_request", "the wait is not a duration such as 30s").at("wait", "is not a duration such as 30s")
	}
	return min(d, time.Minute), nil
}
