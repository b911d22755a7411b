package config

import (
	"strings"
	"testing"
)

func TestLoad_RefusesSubjectsThatTheStreamNeverHolds(t *testing.T) {
	t.Parallel()
	const streams = "streams:\n  - {name: SHOP, subjects: [shop.>, mail.*]}\n  - {name: B, subjects: [b.>]}\n"
	for text, want := range map[string]string{
		"worker: {handlers: [{subject: b.x, sql: f}]}":            "handler for b.x: stream SHOP takes only shop.>, mail.*",
		"worker: {handlers: [{subject: shop, sql: f}]}":           "handler for shop: stream SHOP",
		"worker: {subjects: [mail.a.b]}":                          "worker.subjects: mail.a.b: stream SHOP",
		"worker: {stream: B, subjects: [shop.x]}":                 "shop.x: stream B takes only b.>",
		"worker: {stream: B, handlers: [{subject: b.x, sql: f}]}": "",
		"worker: {stream: ELSEWHERE, subjects: [x]}":              "",
		"worker: {subjects: ['*.x', '>', mail.a]}":                "",
	} {
		_, err := parse("jetbox.yaml", []byte(streams+text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
