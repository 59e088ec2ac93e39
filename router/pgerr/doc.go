// Package pgerr is the form in which errors reach a client: an SQLSTATE, a message and the other fields of a
// PostgreSQL ErrorResponse.
//
// It owns the Error type and the one mapper (Of) from any Go error to it. Packages that a client's error can come
// from either build an *Error or return an error with a method SQLState() string (and, where they have them,
// Hint() string, Detail() string and Position() int).
//
// It imports only the standard library and pgx's pgconn (for the error that it returns).
package pgerr
