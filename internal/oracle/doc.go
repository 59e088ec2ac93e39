// Package oracle runs the same SQL on one plain Postgres and through a Shardyard
// cluster and compares everything that a client can see: rows (as a bag, or in order
// where the statement fixes it), column names, types and type modifiers, command tags
// and SQLSTATE; in the simple protocol, and prepared with text and with binary values.
//
// The plain Postgres is the truth. A difference is a defect of Shardyard, whatever the
// statement; a refusal (0A000 from the router) is not a difference, but is reported as
// what it is, so that a test can insist on an answer.
//
// It is for tests only and may import everything.
package oracle
