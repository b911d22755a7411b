// Package inbox turns deliveries of a JetStream message into one committed
// effect.
//
// What a handler writes through its transaction happens exactly once for each
// (consumer, message): the transaction also inserts the message's ID into
// jetbox.inbox, whose primary key refuses a second time. A message is
// acknowledged after that commit and never before, and a message that cannot be
// processed ends in jetbox.dead_letter with a reason.
//
// Effects outside the transaction, such as an HTTP call, happen at least once;
// they carry a stable idempotency key. Messages of one key stay in order within
// a worker and one kind of handler while none of them fails: what is
// redelivered comes after what overtook it.
//
// # Flow
//
//	Consume ─▶ lane ─▶ { look up IDs ─▶ handlers ─▶ IDs and results ─▶ COMMIT } ─▶ ack
//	                       │ an error: back to the last savepoint, and on without the culprit
//	                       ▼
//	                     failed_attempt ─▶ nak with delay ─▶ … ─▶ dead_letter ─▶ term
//
// A message that has failed once runs apart from first deliveries from then on, and
// in a transaction of its own where one of its deliveries has not ended on record.
//
// # What counts as an attempt
//
// An attempt counts when its failure is on record in jetbox.failed_attempt, and
// MaxAttempts of them make a dead letter. The broker's delivery count decides
// nothing by itself: it also rises when Postgres was away, when a worker
// stopped, when an acknowledgement was lost. But a message that was delivered more
// often than that explains is put on record, before it runs, with an attempt that
// the worker did not survive, which is taken back when the run ends: so a message
// that kills its process each time is dead after MaxAttempts deliveries beyond
// its first. Messages under that
// suspicion run one at a time in a process, so that they do not take innocent
// ones with them.
//
// An error of Postgres itself (no connection, a lost one, a COMMIT whose outcome
// is unknown, a deadlock, a serialization failure, a standby, a full disk) is not
// an attempt. The worker keeps the message and tries again; the next look into the inbox decides
// whether an unknown COMMIT was one. Only when Postgres answers and the same
// message breaks its connection three times running is the message blamed.
package inbox
