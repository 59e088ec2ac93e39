package oracle

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

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
	case strings.HasPrefix(t.name, "reg") && len(value) == 4:
		return s.printableAlias(ctx, t.name, binary.BigEndian.Uint32(value))
	case t.kind == 'c' || t.name == "record":
		return s.printableRecord(ctx, value)
	}
	return hex.EncodeToString(value), nil
}

// printableAlias names the object that a value of an OID alias type (regclass, regtype …) stands for.
func (s *side) printableAlias(ctx context.Context, alias string, oid uint32) (name string, err error) {
	err = s.catalog.QueryRow(ctx, fmt.Sprintf("SELECT %d::oid::%s::text", oid, alias)).Scan(&name)
	if err != nil {
		return "", fmt.Errorf("look up %s %d on %s: %w", alias, oid, s.name, err)
	}
	return name, nil
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
	if len(value) < 4 {
		return "", fmt.Errorf("record of %d bytes from %s", len(value), s.name)
	}
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
