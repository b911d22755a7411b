// Package outbox carries messages from a Postgres transaction to JetStream.
//
// A message exists if and only if the transaction that enqueued it committed.
// Every committed message is published at least once, or ends in
// jetbox.dead_letter with a reason; messages of one key reach their stream in
// the order of their rows. A message may be published more than once: the
// consumer's inbox is what makes its effects happen once.
//
// Enqueue inserts rows, as plain SQL from any language does. A [Relay] follows:
//
//	read     a poll finds the rows that became visible since the last snapshot
//	publish  a route stores them in their streams, in order
//	record   the ledger takes one row a batch: the relay's new position
//
// Nothing marks the rows themselves. [Relay.Run] holds a lease, so one relay
// publishes at a time, and the ledger's primary key stops one that has lost it.
package outbox
