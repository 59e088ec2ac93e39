package planner

import (
	"errors"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// value reads an expression whose value is known when the statement runs: a constant, a parameter, or
// one of these cast to a built-in type. The type returned is the one that Postgres gives it when it is
// compared with col or stored into it.
func (a *analysis) value(n *node, col column) (ValueRef, uint32, bool) {
	columnType := a.baseType(col)
	switch m := unwrap(n).(type) {
	case *constant:
		return a.constantValue(m, columnType)
	case *paramRef:
		return a.paramValue(m, columnType)
	case *typeCast:
		return a.castValue(m)
	}
	return ValueRef{}, 0, false
}

// givenValue reads a value of a column of VALUES or of another query, which is compared with col or stored into it. The type of
// a parameter is that of its column of VALUES, of which col says nothing.
func (a *analysis) givenValue(n *node, col column) (ValueRef, uint32, bool) {
	p, oid := n.GetParamRef(), a.baseType(col)
	if p == nil || a.declared(int(p.Number)) != 0 {
		return a.value(n, col)
	}
	t, ok := directory.KeyTypeOf(oid)
	return ValueRef{Kind: RefParam, Param: int(p.Number), Type: t, Inferred: true, Unsure: true}, oid, ok && p.Number > 0
}

// constantValue reads a literal. One of unknown type takes the type of the other side.
func (a *analysis) constantValue(c *constant, other uint32) (ValueRef, uint32, bool) {
	kind, text := constantOf(c)
	var oid uint32
	switch kind {
	case constNull:
		t, ok := directory.KeyTypeOf(other)
		return ValueRef{Null: true, Type: t}, other, ok
	case constInt:
		oid = 23
	case constFloat:
		oid = floatType(text)
	case constString:
		oid = other
		if !mayHoldTime(other) {
			a.noTime(c)
		}
	case constBool:
		oid = 16
	default:
		return ValueRef{}, 0, false
	}
	t, ok := directory.KeyTypeOf(oid)
	if !ok {
		return ValueRef{}, 0, false
	}
	return a.literal(c, kind, text, t), oid, true
}

// floatType is the type of a number that is not an int4.
func floatType(text string) uint32 {
	digits := strings.TrimPrefix(text, "-")
	if strings.Trim(digits, "0123456789") != "" || digits == "" {
		return numericOID
	}
	if _, err := directory.ParseText(directory.Int8, text); err == nil {
		return 20
	}
	return numericOID
}

// literal refers to a literal of the text, so that the plan serves other values too; if it is not one
// that the cache key leaves open, its value is a part of the plan.
func (a *analysis) literal(c *constant, kind constantKind, text string, t directory.KeyType) ValueRef {
	if kind != constBool {
		if ordinal, negative, ok := a.findLiteral(int(c.Location)); ok {
			return ValueRef{Kind: RefLiteral, Literal: ordinal, Negative: negative, Type: t}
		}
	}
	if int(c.Location) >= 0 && a.sql[c.Location] == '-' {
		// A sign and a literal with something between them: the key leaves the literal open.
		a.valuesUsed = true
	}
	return fixed(text, t)
}

// fixed is a value that is known now; one that cannot be read for certain is left as a text that
// decodes to the same error later.
func fixed(text string, t directory.KeyType) ValueRef {
	v, err := readText(t, text)
	switch {
	case err == nil:
		return ValueRef{Kind: RefConst, Const: v, Type: t}
	case errors.Is(err, directory.ErrUncertain):
		return ValueRef{Kind: RefConst, Type: t, Unsure: true}
	default:
		return ValueRef{Kind: RefConst, Type: t, Invalid: true}
	}
}

// findLiteral finds the literal of the lexer's list that a constant at this offset is. Our parser
// gives the offset of the first minus sign for a negative number.
func (a *analysis) findLiteral(offset int) (ordinal int, negative, ok bool) {
	if offset < 0 {
		return 0, false, false
	}
	i, _ := slices.BinarySearchFunc(a.literals, offset, func(l lexer.Literal, at int) int { return l.Start - at })
	if i == len(a.literals) {
		return 0, false, false
	}
	between := a.sql[offset:a.literals[i].Start]
	minus := strings.Count(between, "-")
	if strings.Trim(between, "- \t\n\r\f\v") != "" {
		return 0, false, false
	}
	if strings.Contains(between, "--") {
		return 0, false, false // a comment
	}
	return i, minus%2 == 1, true
}

// declared is the type that the client declared for a parameter, 0 if none.
func (a *analysis) declared(number int) uint32 {
	if number < 1 || number > len(a.types) {
		return 0
	}
	if a.types[number-1] == 705 { // unknown
		return 0
	}
	return a.types[number-1]
}

func (a *analysis) paramValue(p *paramRef, other uint32) (ValueRef, uint32, bool) {
	number := int(p.Number)
	oid := a.env.Catalog.BaseType(a.declared(number))
	inferred := oid == 0
	if inferred {
		oid = other
	}
	t, ok := directory.KeyTypeOf(oid)
	if !ok || number < 1 {
		return ValueRef{}, 0, false
	}
	ref := ValueRef{Kind: RefParam, Param: number, Type: t}
	if inferred {
		a.inferred(p, t)
		ref.Inferred = true
	}
	return ref, oid, true
}

// inferred notes that a context gave a parameter a type.
func (a *analysis) inferred(p *paramRef, t directory.KeyType) {
	use := a.param(int(p.Number))
	if len(use.typed) > 0 && use.as != t {
		use.conflict = true
	}
	use.typed[p.Location] = true
	use.as = t
}

// sure reports whether the type of a parameter of undeclared type is certain: every mention of it is
// one whose context gives it the same type.
func (a *analysis) sure(number int) bool {
	use := a.param(number)
	return !use.conflict && len(use.typed) >= use.occurrences
}

// castValue reads constant::type and $1::type for built-in types without modifier.
func (a *analysis) castValue(c *typeCast) (ValueRef, uint32, bool) {
	oid, ok := a.builtinType(c.TypeName)
	if !ok {
		return ValueRef{}, 0, false
	}
	t, ok := directory.KeyTypeOf(oid)
	if !ok {
		return ValueRef{}, 0, false
	}
	switch m := unwrap(c.Arg).(type) {
	case *constant:
		kind, text := constantOf(m)
		switch {
		case kind == constNull:
			return ValueRef{Null: true, Type: t}, oid, true
		case kind == constString, kind == constInt && (isNumber(oid)), kind == constBool && oid == 16:
			return a.literal(m, kind, text, t), oid, true
		case kind == constFloat && oid == numericOID, kind == constFloat && oid == 20 && floatType(text) == 20:
			return a.literal(m, kind, text, t), oid, true
		}
	case *paramRef:
		declared := a.declared(int(m.Number))
		if declared != 0 && declared != oid && !(isInteger(declared) && isInteger(oid)) {
			return ValueRef{}, 0, false
		}
		ref, _, ok := a.paramValue(m, oid)
		return ref, oid, ok
	}
	return ValueRef{}, 0, false
}

// builtinType is the OID of a plain built-in key type: no modifier, no array.
func (a *analysis) builtinType(t *typeNameNode) (uint32, bool) {
	if t == nil || t.Setof || t.PctType || len(t.Typmods) > 0 || len(t.ArrayBounds) > 0 {
		return 0, false
	}
	parts, ok := names(t.Names)
	if !ok || len(parts) == 0 || len(parts) > 2 {
		return 0, false
	}
	schema, name := "", parts[len(parts)-1]
	if len(parts) == 2 {
		schema = parts[0]
	}
	found, ok := a.env.Catalog.TypeByName(schema, name, a.path)
	if ok {
		return found.OID, found.Schema == "pg_catalog" && found.Kind == 'b'
	}
	if schema != "" && schema != "pg_catalog" {
		return 0, false
	}
	for _, k := range directory.KeyTypes() {
		if k.String() == name {
			return k.OID(), true
		}
	}
	return 0, false
}

// arrayValue reads the right side of = ANY: ARRAY[…], an array literal or a parameter.
func (a *analysis) arrayValue(n *node, col column) ([]ValueRef, uint32, bool) {
	elementType := a.baseType(col)
	switch m := unwrap(n).(type) {
	case *paramRef:
		if declared := a.declared(int(m.Number)); declared != 0 {
			t, ok := a.env.Catalog.TypeByOID(declared)
			if ok && t.IsArray() {
				elementType = t.Elem
			} else if elementType, ok = builtinElement(declared); !ok {
				return nil, 0, false
			}
		}
		t, ok := directory.KeyTypeOf(elementType)
		if !ok || m.Number < 1 {
			return nil, 0, false
		}
		ref := ValueRef{Kind: RefParam, Param: int(m.Number), Type: t, Array: true}
		if a.declared(int(m.Number)) == 0 {
			a.inferred(m, t)
			ref.Inferred = true
		}
		return []ValueRef{ref}, elementType, true
	case *constant:
		kind, text := constantOf(m)
		t, ok := directory.KeyTypeOf(elementType)
		if !ok || kind != constString {
			return nil, 0, false
		}
		return a.arrayLiteral(m, text, t), elementType, true
	case *typeCast:
		return a.castArray(m, col)
	}
	if array := n.GetAArrayExpr(); array != nil {
		return a.arrayItems(array.Elements, col)
	}
	return nil, 0, false
}

func (a *analysis) arrayLiteral(c *constant, text string, t directory.KeyType) []ValueRef {
	if ordinal, negative, ok := a.findLiteral(int(c.Location)); ok && !negative {
		return []ValueRef{{Kind: RefLiteral, Literal: ordinal, Type: t, Array: true}}
	}
	elements, ok := splitArray(text)
	if !ok {
		return []ValueRef{{Kind: RefConst, Type: t, Unsure: true}}
	}
	refs := make([]ValueRef, 0, len(elements))
	for _, e := range elements {
		if e.null {
			refs = append(refs, ValueRef{Null: true, Type: t})
			continue
		}
		refs = append(refs, fixed(e.text, t))
	}
	return refs
}

// castArray reads '{…}'::type[], $1::type[] and ARRAY[…]::type[].
func (a *analysis) castArray(c *typeCast, col column) ([]ValueRef, uint32, bool) {
	name := c.TypeName
	if name == nil || len(name.ArrayBounds) != 1 || len(name.Typmods) > 0 || name.Setof || name.PctType {
		return nil, 0, false
	}
	plain := &typeNameNode{Names: name.Names}
	oid, ok := a.builtinType(plain)
	if !ok {
		return nil, 0, false
	}
	t, ok := directory.KeyTypeOf(oid)
	if !ok {
		return nil, 0, false
	}
	switch m := unwrap(c.Arg).(type) {
	case *constant:
		if kind, text := constantOf(m); kind == constString {
			return a.arrayLiteral(m, text, t), oid, true
		}
	case *paramRef:
		declared := a.declared(int(m.Number))
		if element, known := builtinElement(declared); declared != 0 && (!known || element != oid) {
			return nil, 0, false
		}
		ref := ValueRef{Kind: RefParam, Param: int(m.Number), Type: t, Array: true}
		if declared == 0 {
			a.inferred(m, t)
			ref.Inferred = true
		}
		return []ValueRef{ref}, oid, m.Number > 0
	default:
		if array := c.Arg.GetAArrayExpr(); array != nil && oid == a.baseType(col) {
			return a.arrayItems(array.Elements, col)
		}
	}
	return nil, 0, false
}

// arrayItems reads the elements of ARRAY[…]: all integers or all of unknown type, so that the common
// type is certain.
func (a *analysis) arrayItems(elements []*node, col column) ([]ValueRef, uint32, bool) {
	columnType := a.baseType(col)
	refs := make([]ValueRef, 0, len(elements))
	for _, n := range elements {
		c := n.GetAConst()
		if c == nil {
			return nil, 0, false
		}
		kind, _ := constantOf(c)
		v, oid, ok := a.constantValue(c, columnType)
		if !ok || !(kind == constNull || isInteger(oid) && isInteger(columnType) || kind == constString && isText(columnType)) {
			return nil, 0, false
		}
		refs = append(refs, v)
	}
	return refs, columnType, len(refs) > 0
}

// builtinElement is the element type of a built-in array type over a key type.
func builtinElement(array uint32) (uint32, bool) {
	switch array {
	case 1005:
		return 21, true
	case 1007:
		return 23, true
	case 1016:
		return 20, true
	case 1009:
		return 25, true
	case 1015:
		return 1043, true
	case 2951:
		return 2950, true
	case 1182:
		return 1082, true
	case 1115:
		return 1114, true
	case 1185:
		return 1184, true
	case 1231:
		return numericOID, true
	case 1001:
		return 17, true
	case 1000:
		return 16, true
	}
	return 0, false
}
