// Package copyrow splits the data of COPY … FROM STDIN into rows, as Postgres's copyfromparse.c does, and finds the
// bytes of chosen fields in them. It changes nothing: a row is a piece of what the client sent, to be passed on to a
// server, and what is malformed is returned as such, for a server to say the error.
//
// It owns the syntax of COPY's formats text, CSV and binary. It knows nothing of types, tables and connections.
//
// It is pure: it imports the standard library only.
package copyrow
