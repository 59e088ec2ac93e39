package oracle

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// side is one of the two: a connection to the plain Postgres or to a router.
type side struct {
	name       string
	conn       *pgx.Conn
	statements int // prepared so far
	types      map[uint32]pgType
}

// pgType is what is needed to name a type and to look inside its binary values.
type pgType struct {
	name    string
	kind    byte   // pg_type.typtype
	element uint32 // of a true array
}

func connect(ctx context.Context, name, connString string) (*side, error) {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("parse connection string of %s: %w", name, err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return &side{name: name, conn: conn, types: map[uint32]pgType{}}, nil
}

// typeOf looks a type up on a connection of the caller's side. User types have other
// OIDs on the two sides, so types are compared by name. Must not be called in a failed
// transaction unless the type is known already.
func (s *side) typeOf(ctx context.Context, oid uint32) (pgType, error) {
	if t, ok := s.types[oid]; ok {
		return t, nil
	}
	var t pgType
	var kind string
	err := s.conn.QueryRow(ctx, fmt.Sprintf(
		`SELECT pg_catalog.format_type(oid, NULL), typtype::text, CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END
		   FROM pg_catalog.pg_type WHERE oid = %d`, oid)).Scan(&t.name, &kind, &t.element)
	if err != nil {
		return t, fmt.Errorf("look up type %d on %s: %w", oid, s.name, err)
	}
	t.kind = kind[0]
	s.types[oid] = t
	return t, nil
}

// printable turns a value into text that is equal on both sides exactly when the values are.
func (s *side) printable(ctx context.Context, oid uint32, value []byte, isBinary bool) (string, error) {
	if value == nil {
		return `\N`, nil
	}
	if !isBinary {
		return string(value), nil
	}
	t, err := s.typeOf(ctx, oid)
	if err != nil {
		return "", err
	}
	switch {
	case t.element != 0:
		return s.printableArray(ctx, value)
	case t.kind == 'c' || t.name == "record":
		return s.printableRecord(ctx, value)
	}
	return hex.EncodeToString(value), nil
}

// printableArray follows array_send: dimensions, flags, element OID, bounds, elements.
func (s *side) printableArray(ctx context.Context, value []byte) (string, error) {
	if len(value) < 12 {
		return "", fmt.Errorf("array of %d bytes from %s", len(value), s.name)
	}
	dims, element := int(binary.BigEndian.Uint32(value)), binary.BigEndian.Uint32(value[8:])
	t, err := s.typeOf(ctx, element)
	if err != nil {
		return "", err
	}
	header := 12 + 8*dims
	if len(value) < header {
		return "", fmt.Errorf("array header of %d bytes from %s", len(value), s.name)
	}
	parts := []string{t.name, hex.EncodeToString(value[12:header])}
	for rest := value[header:]; len(rest) > 0; {
		var part string
		if part, rest, err = s.printableField(ctx, element, rest); err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	return "{" + strings.Join(parts, ",") + "}", nil
}

// printableRecord follows record_send: the number of columns, then OID, length and value of each.
func (s *side) printableRecord(ctx context.Context, value []byte) (string, error) {
	var parts []string
	for rest := value[4:]; len(rest) >= 8; {
		oid := binary.BigEndian.Uint32(rest)
		t, err := s.typeOf(ctx, oid)
		if err != nil {
			return "", err
		}
		var part string
		if part, rest, err = s.printableField(ctx, oid, rest[4:]); err != nil {
			return "", err
		}
		parts = append(parts, t.name+":"+part)
	}
	return "(" + strings.Join(parts, ",") + ")", nil
}

// printableField takes a length-prefixed value off the front of rest.
func (s *side) printableField(ctx context.Context, oid uint32, rest []byte) (text string, after []byte, err error) {
	if len(rest) < 4 {
		return "", nil, fmt.Errorf("field cut short from %s", s.name)
	}
	length := int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if length < 0 {
		return `\N`, rest, nil
	}
	if len(rest) < int(length) {
		return "", nil, fmt.Errorf("field cut short from %s", s.name)
	}
	text, err = s.printable(ctx, oid, rest[:length], true)
	return text, rest[length:], err
}
