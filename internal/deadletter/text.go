package deadletter

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Text makes s fit a Postgres text: valid UTF-8 without NUL.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// withoutNUL replaces the escape that json allows and jsonb refuses. An escaped
// backslash before "u0000" is text, not that escape.
func withoutNUL(j string) string {
	return strings.NewReplacer(`\\`, `\\`, `\u0000`, `\ufffd`).Replace(j)
}

// HeaderText is headers as an object of strings, several values of one name
// joined as HTTP joins them; nil when there are none.
func HeaderText(headers map[string][]string) (*string, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	flat := make(map[string]string, len(headers))
	for name, values := range headers {
		flat[name] = strings.Join(values, ", ")
	}
	text, err := json.Marshal(flat)
	if err != nil {
		return nil, err
	}
	s := withoutNUL(string(text))
	return &s, nil
}

// maxDepth is how deep JSON may nest to be stored as json: Postgres' parser
// recurses, and max_stack_depth ends it at a few thousand levels.
const maxDepth = 500

// SplitPayload says which of the columns payload and payload_bytes holds body;
// the other is nil.
func SplitPayload(contentType string, body []byte) (payload *string, raw []byte) {
	isJSON := contentType == "" || contentType == "application/json"
	if isJSON && utf8.Valid(body) && depth(body) <= maxDepth && json.Valid(body) {
		s := string(body)
		return &s, nil
	}
	if body == nil {
		body = []byte{} // empty, not NULL
	}
	return nil, body
}

// depth is how deep the brackets of a JSON text nest.
func depth(text []byte) int {
	deepest, level, quoted, escaped := 0, 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}
