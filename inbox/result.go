package inbox

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// maxResult is the outbox's limit for a payload: a result may become one.
const maxResult = 900_000

// encode makes the text of a result; nil for one that is null or no bytes.
func encode(result any) (*string, error) {
	if raw, ok := result.(json.RawMessage); ok && len(raw) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(result)
	switch {
	case err != nil:
		return nil, Permanent(fmt.Errorf("result: encode: %w", err))
	case string(text) == "null":
		return nil, nil
	case len(text) > maxResult:
		return nil, Permanent(fmt.Errorf("result of %d bytes is larger than %d", len(text), maxResult))
	case !utf8.Valid(text):
		return nil, Permanent(fmt.Errorf("result is not UTF-8"))
	}
	s := string(text)
	return &s, nil
}
