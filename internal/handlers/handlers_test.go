package handlers

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/jetboxhq/jetbox/inbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const payload = `{"card": "4242"}`

// message is one with everything a message can have.
func message() inbox.Message[[]byte] {
	return inbox.Message[[]byte]{
		ID: uuid.MustParse("0198c0de-0000-7000-8000-000000000001"), Subject: "jobs.bill", Key: "order 7", Attempt: 3,
		Headers: map[string][]string{
			"traceparent": {"00-aa-bb-01"}, "X-Tenant": {"acme"}, "Authorization": {"forged"}, "Connection": {"close"},
			"Idempotency-Key": {"forged"}, "Host": {"forged"}, "LD_PRELOAD": {"forged"},
		},
		Payload: []byte(payload),
	}
}

// verdict says what the worker will do after err.
func verdict(err error) string {
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch fmt.Sprintf("%T", e) {
		case "*inbox.permanentError":
			return "permanent"
		case "*inbox.retryError":
			return "retry after"
		}
	}
	if err == nil {
		return "done"
	}
	return "retry"
}

func TestResult_KeepsJSONAndTextAndBytes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ answer, want string }{
		"nothing":     {" \n", ""},
		"json":        {" {\"a\": 1.0}\n", `{"a": 1.0}`},
		"text":        {"charged <7>\n", `"charged \u003c7\u003e"`},
		"bytes":       {"\xff\x00 ", `{"base64":"` + base64.StdEncoding.EncodeToString([]byte("\xff\x00 ")) + `"}`},
		"largest":     {strings.Repeat("1", maxResult), strings.Repeat("1", maxResult)},
		"json's end":  {`{"a": 1}{`, `"{\"a\": 1}{"`},
		"one number":  {"17\n", "17"},
		"empty quote": {`""`, `""`},
	} {
		got, err := result([]byte(tt.answer))
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: result = %.100s, %v, want %.100s", name, got, err, tt.want)
		}
	}
	if _, err := result(make([]byte, maxResult+1)); verdict(err) != "permanent" || !strings.Contains(err.Error(), "larger than 900000 bytes") {
		t.Errorf("too large: %v, want a permanent error with the limit", err)
	}
}

// secretive fails the test if err shows what no error may show.
func secretive(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"4242", "hunter2", "forged"} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("error shows %s: %v", secret, err)
		}
	}
}

// done is a context that has ended for a reason of the worker's.
func done(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}
