// Package auth decides who may come in: rules in the format of pg_hba.conf, name maps in that of pg_ident.conf, passwords
// and verifiers in that of PgBouncer's userlist.txt, TLS for clients, the server's side of SCRAM-SHA-256 (with channel
// binding) and md5, and how often somebody may fail.
//
// It owns the files of those settings and their parsers. It reads and writes no network connection: the exchanges take and
// return the contents of messages, and package router carries them. What the shards say of a role is asked by package router
// too. A Policy never changes; a reload makes a new one.
//
// It may import router/pgerr.
package auth
