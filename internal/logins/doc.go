// Package logins tests who may come in, end to end: clients that log in to routers in front of shards that take nothing but
// TLS and SCRAM-SHA-256 from applications. It has a cluster of its own for that, and no code but tests.
package logins
