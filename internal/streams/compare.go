package streams

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A difference is optional when the relay works without it, changeable when
// the server lets it be edited, and fixed for the life of the stream otherwise.
type kind int

const (
	optional kind = iota
	changeable
	fixed
)

type difference struct {
	kind             kind
	field            string
	have, need, edit string
}

func (d difference) line(stream string) string {
	remedy := "run nats stream edit " + stream + " " + d.edit
	if d.kind == fixed {
		remedy = fmt.Sprintf("this cannot be changed: write %s: %s in jetbox.yaml, or empty the stream and remove it", d.field, d.have)
	}
	return fmt.Sprintf("%s is %s, need %s: %s", d.field, d.have, d.need, remedy)
}

// merge returns have with what want sets. A limit that want leaves at zero is
// the operator's.
func merge(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	m := have
	if len(want.Subjects) > 0 {
		m.Subjects = want.Subjects
	}
	m.Retention = want.Retention
	m.Storage = want.Storage
	m.Replicas = cmp.Or(want.Replicas, have.Replicas)
	m.MaxMsgs = cmp.Or(want.MaxMsgs, have.MaxMsgs)
	m.MaxBytes = cmp.Or(want.MaxBytes, have.MaxBytes)
	m.MaxAge = cmp.Or(want.MaxAge, have.MaxAge)
	m.MaxMsgsPerSubject = cmp.Or(want.MaxMsgsPerSubject, have.MaxMsgsPerSubject)
	m.DiscardNewPerSubject = want.DiscardNewPerSubject || have.DiscardNewPerSubject
	m.Duplicates = cmp.Or(want.Duplicates, have.Duplicates)
	if want.Discard == jetstream.DiscardNew {
		m.Discard = jetstream.DiscardNew
	}
	m.AllowAtomicPublish = want.AllowAtomicPublish || have.AllowAtomicPublish
	m.AllowBatchPublish = want.AllowBatchPublish || have.AllowBatchPublish
	return m
}

func compare(have, need jetstream.StreamConfig) []difference {
	all := []difference{
		{changeable, "subjects", subjects(have), subjects(need), "--subjects=" + strings.Join(need.Subjects, ",")},
		{retentionKind(have, need), "retention", retention(have), retention(need), "--retention=" + retention(need)},
		{fixed, "storage", storage(have), storage(need), ""},
		{changeable, "replicas", fmt.Sprint(have.Replicas), fmt.Sprint(need.Replicas), fmt.Sprintf("--replicas=%d", need.Replicas)},
		{changeable, "max_msgs", limit(have.MaxMsgs), limit(need.MaxMsgs), fmt.Sprintf("--max-msgs=%d", need.MaxMsgs)},
		{changeable, "max_bytes", limit(have.MaxBytes), limit(need.MaxBytes), fmt.Sprintf("--max-bytes=%d", need.MaxBytes)},
		{changeable, "max_age", age(have.MaxAge), age(need.MaxAge), fmt.Sprintf("--max-age=%s", need.MaxAge)},
		{
			changeable, "max_msgs_per_subject", limit(have.MaxMsgsPerSubject), limit(need.MaxMsgsPerSubject),
			fmt.Sprintf("--max-msgs-per-subject=%d", need.MaxMsgsPerSubject),
		},
		{changeable, "duplicate_window", have.Duplicates.String(), need.Duplicates.String(), fmt.Sprintf("--dupe-window=%s", need.Duplicates)},
		{optional, "discard", have.Discard.String(), need.Discard.String(), "--discard=new"},
		{optional, "discard_new_per_subject", fmt.Sprint(have.DiscardNewPerSubject), fmt.Sprint(need.DiscardNewPerSubject), ""},
		{optional, "allow_atomic", fmt.Sprint(have.AllowAtomicPublish), fmt.Sprint(need.AllowAtomicPublish), ""},
		{optional, "allow_batched", fmt.Sprint(have.AllowBatchPublish), fmt.Sprint(need.AllowBatchPublish), ""},
	}
	return slices.DeleteFunc(all, func(d difference) bool { return d.have == d.need })
}

// retentionKind: a stream becomes or stops being a work queue never; between the
// other two the server lets it change.
func retentionKind(have, need jetstream.StreamConfig) kind {
	if have.Retention == jetstream.WorkQueuePolicy || need.Retention == jetstream.WorkQueuePolicy {
		return fixed
	}
	return changeable
}

func subjects(c jetstream.StreamConfig) string {
	return "[" + strings.Join(slices.Sorted(slices.Values(c.Subjects)), " ") + "]"
}

func retention(c jetstream.StreamConfig) string { return strings.ToLower(c.Retention.String()) }

func storage(c jetstream.StreamConfig) string { return strings.ToLower(c.Storage.String()) }

// limit shows zero as the server does: both zero and -1 are no limit.
func limit(n int64) string {
	if n <= 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func age(d time.Duration) string {
	if d == 0 {
		return "unlimited"
	}
	return d.String()
}

func addCommand(c jetstream.StreamConfig) string {
	return fmt.Sprintf("run nats stream add %s --subjects=%s --retention=%s --storage=%s --replicas=%d --discard=new --defaults",
		c.Name, strings.Join(c.Subjects, ","), strings.Replace(retention(c), "workqueue", "work", 1), storage(c), max(c.Replicas, 1))
}
