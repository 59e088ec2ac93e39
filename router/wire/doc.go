// Package wire reads and writes the PostgreSQL frontend/backend protocol, version 3, as frames.
//
// It owns the framing (lengths, limits, buffers) on both sides of the router and the layout of each message.
// Everything that is decoded views the frame it came from; nothing is copied, and relaying a frame allocates
// nothing. It knows no session, no connection pool and no SQL.
//
// It imports only the standard library.
//
// Source of the formats: "Message Formats" in the PostgreSQL documentation; limits as in
// src/backend/tcop/postgres.c (SocketBackend) and src/backend/postmaster/postmaster.c (ProcessStartupPacket).
package wire
