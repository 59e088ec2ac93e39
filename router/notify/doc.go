// Package notify hears the notifications that sessions listen for (LISTEN, NOTIFY). Server connections are shared between
// sessions, transaction by transaction, so none of them can listen for a session; a Hub has connections of its own that do, one to
// each shard of a database while any session of this router listens, and gives each notification to the sessions that want it.
//
// A connection that is lost may have missed something, and nobody can know what. Everybody who listened is told so, by
// Listener.Take; nothing is lost without a word.
//
// It may import directory, router/wire and router/pgerr.
package notify
