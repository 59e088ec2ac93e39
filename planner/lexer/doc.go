// Package lexer splits SQL text into tokens exactly as PostgreSQL 17's scanner
// (src/backend/parser/scan.l) does with standard_conforming_strings on, and
// builds on that what must be cheap because it runs for every statement: the
// normalised form that keys the plan cache, the split of a multi-statement
// text, and the first keyword of a statement.
//
// It owns no grammar: whether the tokens form a statement is for pg_query to
// say. It is pure (no net, os, etcd or slog), imports nothing of ours, and its
// hot paths allocate nothing once the caller's buffers are warm.
//
// That the tokens are the same as Postgres's is checked by FuzzLexer against
// pg_query's copy of the scanner.
package lexer
