package pgerr

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Of maps any error to what a client sees, nil to nil. In this order it takes, from the chain of err: an *Error as it
// is, pgconn's error of a server with all its fields, any error with SQLState() (and ClientFields, or Hint, Detail, Position),
// a cancelled or expired context (57014), a lost connection (08006). What is left is a bug of ours: XX000 with its text.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return ofServer(server, err)
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return ofState(state, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return New(QueryCanceled, "canceling statement due to user request").Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return New(QueryCanceled, "canceling statement due to timeout").Because(err)
	case isLost(err):
		return Newf(ConnectionFailure, "connection to a shard was lost: %v", err).Because(err)
	}
	return Newf(InternalError, "internal error: %v", err).Because(err)
}

// ofServer keeps every field of the server's error. FATAL and PANIC ended a server connection, not the client's session.
func ofServer(server *pgconn.PgError, err error) *Error {
	return &Error{
		Severity: SeverityError, Code: server.Code, Message: server.Message, Detail: server.Detail, Hint: server.Hint,
		Position: server.Position, InternalPosition: server.InternalPosition, InternalQuery: server.InternalQuery,
		Where: server.Where, Schema: server.SchemaName, Table: server.TableName, Column: server.ColumnName,
		DataType: server.DataTypeName, Constraint: server.ConstraintName, File: server.File,
		Line: lineText(server.Line), Routine: server.Routine, cause: err,
	}
}

// ofState takes the fields of the error that names its SQLSTATE; its own message, not that of what wrapped it on the
// way, is what was written for the client.
func ofState(state interface{ SQLState() string }, err error) *Error {
	e := &Error{Severity: SeverityError, Code: state.SQLState(), Message: err.Error(), cause: err}
	if inner, ok := state.(error); ok {
		e.Message = inner.Error()
	}
	if len(e.Code) != 5 {
		e.Code = InternalError
	}
	if with, ok := state.(interface {
		ClientFields() (detail, hint string, position int)
	}); ok {
		detail, hint, position := with.ClientFields()
		e.Detail, e.Hint, e.Position = detail, hint, int32(position)
		return e
	}
	if with, ok := state.(interface{ Hint() string }); ok {
		e.Hint = with.Hint()
	}
	if with, ok := state.(interface{ Detail() string }); ok {
		e.Detail = with.Detail()
	}
	switch with := state.(type) {
	case interface{ Position() int }:
		e.Position = int32(with.Position())
	case interface{ Position() int32 }:
		e.Position = with.Position()
	}
	return e
}

func lineText(line int32) string {
	if line == 0 {
		return ""
	}
	return strconv.Itoa(int(line))
}

// isLost reports errors of a network connection.
func isLost(err error) bool {
	var network net.Error
	var number syscall.Errno
	return errors.As(err, &network) || errors.As(err, &number) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}
