// Package handlers lets what is not Go handle messages: an HTTP endpoint, or a
// command.
//
// Both are calls to the outside: they happen at least once, and each attempt at
// a message carries the same idempotency key. What the call answers is the
// message's result, which is committed with its ID after the call; no
// transaction is open meanwhile. An error never holds a payload, a header or a
// URL.
//
//	message ─▶ request or environment ─▶ call ─▶ verdict: result | retry | dead letter
package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/jetboxhq/jetbox/inbox"
)

// maxResult is the inbox's limit for a result.
const maxResult = 900_000

// result makes a message's result of what a call answered: JSON stays JSON, text
// becomes a JSON string, anything else {"base64": "…"}.
func result(answer []byte) (json.RawMessage, error) {
	text := bytes.TrimSpace(answer)
	switch {
	case len(answer) > maxResult:
		return nil, inbox.Permanent(fmt.Errorf("the result is larger than %d bytes: answer with where it is", maxResult))
	case len(text) == 0:
		return nil, nil
	case !utf8.Valid(text):
		return json.Marshal(map[string][]byte{"base64": answer})
	case json.Valid(text):
		return text, nil
	}
	return json.Marshal(string(text))
}

func contentType(msg inbox.Message[[]byte]) string {
	if msg.ContentType == "" {
		return "application/json"
	}
	return msg.ContentType
}
