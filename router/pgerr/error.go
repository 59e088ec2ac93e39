package pgerr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// SQLSTATEs that Shardyard itself reports.
const (
	FeatureNotSupported = "0A000" // cannot be proven right, or not built
	StaleMap            = "40001" // the partition map changed under a transaction
	DeadlockDetected    = "40P01" // over several shards
	QueryCanceled       = "57014"
	TooManyConnections  = "53300" // a pool or its queue is full
	AdminShutdown       = "57P01" // the router drains
	CannotConnectNow    = "57P03" // the router's map is too old, or a shard does not accept connections yet
	ConnectionFailure   = "08006" // a shard was lost
	OutcomeUnknown      = "08007" // a shard was lost while it committed
	ProtocolViolation   = "08P01"
	InternalError       = "XX000" // a bug of ours
)

// Severities; SeverityError keeps the session, SeverityFatal closes it.
const (
	SeverityError  = "ERROR"
	SeverityFatal  = "FATAL"
	SeverityNotice = "NOTICE"
)

// Error is what a client sees. Its methods that change it are for building it; once it was returned it is immutable.
type Error struct {
	Severity         string // Defaults to ERROR
	Code             string
	Message          string
	Detail           string
	Hint             string
	Position         int32 // 1-based, in characters of the client's query; 0: none
	InternalPosition int32
	InternalQuery    string
	Where            string
	Schema           string
	Table            string
	Column           string
	DataType         string
	Constraint       string
	File             string
	Line             string
	Routine          string

	raw   []byte // body of a shard's ErrorResponse, passed on as it is
	cause error
}

// New returns an ERROR.
func New(code, message string) *Error {
	return &Error{Severity: SeverityError, Code: code, Message: message}
}

// Newf is New with a format.
func Newf(code, format string, args ...any) *Error { return New(code, fmt.Sprintf(format, args...)) }

// Unsupported returns a 0A000 with the reason and a hint; every refusal has both.
func Unsupported(message, hint string) *Error {
	return New(FeatureNotSupported, message).WithHint(hint)
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(hint string) *Error { e.Hint, e.raw = hint, nil; return e }

// WithDetail sets the detail and returns e.
func (e *Error) WithDetail(detail string) *Error { e.Detail, e.raw = detail, nil; return e }

// Within sets the context (CONTEXT in psql) and returns e. All other fields of a shard's error stay as they are.
func (e *Error) Within(where string) *Error {
	e.Where = where
	if e.raw == nil {
		return e
	}
	var changed []byte
	for rest := e.raw; len(rest) > 1; {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			break
		}
		if rest[0] == 'W' {
			changed = appendField(changed, 'W', where)
		} else {
			changed = append(changed, rest[:end+1]...)
		}
		rest = rest[end+1:]
	}
	e.raw = append(changed, 0)
	return e
}

// At sets the position, 1-based in characters of the client's query, and returns e.
func (e *Error) At(position int) *Error { e.Position, e.raw = int32(position), nil; return e }

// Because keeps a cause for errors.Is and errors.As; it is not shown to the client.
func (e *Error) Because(cause error) *Error { e.cause = cause; return e }

// Bare returns the error without where it happened: that was in code of ours.
func (e *Error) Bare() *Error {
	e.Where, e.InternalQuery, e.Position, e.InternalPosition, e.raw = "", "", 0, 0, nil
	return e
}

// Fatal returns a copy of e that closes the session.
func (e *Error) Fatal() *Error { return e.withSeverity(SeverityFatal) }

// AsError returns a copy of e that keeps the session, as for a shard's FATAL that cost only a server connection.
func (e *Error) AsError() *Error { return e.withSeverity(SeverityError) }

func (e *Error) withSeverity(severity string) *Error {
	changed := *e
	changed.Severity, changed.raw = severity, nil
	return &changed
}

// IsFatal reports whether the session must be closed.
func (e *Error) IsFatal() bool { return e.Severity == SeverityFatal || e.Severity == "PANIC" }

// Error returns severity, message and SQLSTATE.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.severity(), e.Message, e.Code)
}

// SQLState returns the code.
func (e *Error) SQLState() string { return e.Code }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) severity() string {
	if e.Severity == "" {
		return SeverityError
	}
	return e.Severity
}

// FromShard reads the body of a shard's ErrorResponse. The body is copied and passed on whole by Append, so that no
// field is lost; a malformed one becomes an XX000.
func FromShard(body []byte) *Error {
	e := &Error{raw: append([]byte(nil), body...)}
	rest := body
	for len(rest) > 0 && rest[0] != 0 {
		end := 1
		for end < len(rest) && rest[end] != 0 {
			end++
		}
		if end == len(rest) {
			break
		}
		e.set(rest[0], string(rest[1:end]))
		rest = rest[end+1:]
	}
	if len(rest) != 1 || rest[0] != 0 || e.Code == "" {
		return New(InternalError, "a shard sent a malformed error message")
	}
	return e
}

func (e *Error) set(field byte, value string) {
	switch field {
	case 'S':
		if e.Severity == "" {
			e.Severity = value
		}
	case 'V': // not localised
		e.Severity = value
	case 'P':
		e.Position = parsePosition(value)
	case 'p':
		e.InternalPosition = parsePosition(value)
	default:
		if text := e.text(field); text != nil {
			*text = value
		}
	}
}

func parsePosition(value string) int32 {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// text returns the place of a field that is plain text, nil for the others.
func (e *Error) text(field byte) *string {
	switch field {
	case 'C':
		return &e.Code
	case 'M':
		return &e.Message
	case 'D':
		return &e.Detail
	case 'H':
		return &e.Hint
	case 'q':
		return &e.InternalQuery
	case 'W':
		return &e.Where
	case 's':
		return &e.Schema
	case 't':
		return &e.Table
	case 'c':
		return &e.Column
	case 'd':
		return &e.DataType
	case 'n':
		return &e.Constraint
	case 'F':
		return &e.File
	case 'L':
		return &e.Line
	case 'R':
		return &e.Routine
	}
	return nil
}

// Append appends the ErrorResponse. What came from a shard is appended as the shard sent it.
func (e *Error) Append(dst []byte) []byte { return e.append(dst, 'E') }

// AppendNotice appends e as a NoticeResponse.
func (e *Error) AppendNotice(dst []byte) []byte { return e.append(dst, 'N') }

func (e *Error) append(dst []byte, kind byte) []byte {
	at := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	if e.raw != nil {
		dst = append(dst, e.raw...)
	} else {
		dst = e.appendFields(dst)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

func (e *Error) appendFields(dst []byte) []byte {
	dst = appendField(dst, 'S', e.severity())
	dst = appendField(dst, 'V', e.severity())
	code := e.Code
	if code == "" {
		code = InternalError
	}
	dst = appendField(dst, 'C', code)
	dst = append(dst, 'M')
	dst = appendText(dst, e.Message)
	for _, field := range []byte("DH") {
		dst = appendField(dst, field, *e.text(field))
	}
	dst = appendPosition(dst, 'P', e.Position)
	dst = appendPosition(dst, 'p', e.InternalPosition)
	for _, field := range []byte("qWstcdnFLR") {
		dst = appendField(dst, field, *e.text(field))
	}
	return append(dst, 0)
}

func appendField(dst []byte, field byte, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(append(dst, field), value)
}

// appendText appends a zero-terminated string; a zero byte inside would end the field early, so it is left out.
func appendText(dst []byte, value string) []byte {
	for i := 0; i < len(value); i++ {
		if value[i] != 0 {
			dst = append(dst, value[i])
		}
	}
	return append(dst, 0)
}

func appendPosition(dst []byte, field byte, position int32) []byte {
	if position <= 0 {
		return dst
	}
	return appendField(dst, field, strconv.Itoa(int(position)))
}
