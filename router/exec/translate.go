package exec

import (
	"encoding/binary"
	"slices"

	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// firstUserOID is the first OID that a server gives to a user's object (FirstNormalObjectId).
const firstUserOID = 16384

// rowTranslation says which columns of the rows of one portal hold OIDs of a shard in their binary form.
type rowTranslation struct {
	active bool
	types  []uint32 // the home shard's type of each column to be rewritten, 0 for the others
}

func (r *rowTranslation) none() { r.active = false }

// relayDescription sends a RowDescription with the home shard's OIDs.
func (x *Executor) relayDescription(l *Link, s *step, frame wire.Frame, silent bool) error {
	rows := l.translationOf(s)
	rows.none()
	if !l.home {
		if err := x.describeHome(l, frame.Body, rows); err != nil {
			return err
		}
	}
	if s.seen != nil {
		s.seen.Described, s.seen.Columns = true, append(s.seen.Columns[:0], frame.Body...)
	}
	return x.relay(frame.Raw, silent)
}

func (l *Link) translationOf(s *step) *rowTranslation {
	if s.rows != nil {
		return s.rows
	}
	return &l.rows
}

// describeHome rewrites a RowDescription in place and notes which columns of the rows are to be rewritten.
func (x *Executor) describeHome(l *Link, body []byte, rows *rowTranslation) error {
	columns, err := wire.DecodeRowDescription(x.columns[:0], body)
	if err != nil {
		return err
	}
	x.columns = columns
	rows.types = rows.types[:0]
	for i := range columns {
		col := &columns[i]
		if col.Table >= firstUserOID {
			col.SetTable(body, x.view.Table)
		}
		rows.types = append(rows.types, 0)
		if l.oids == nil {
			continue
		}
		home, ok := l.oids.ToHome(col.Type)
		if !ok {
			return errUnknownType(l, col.Type)
		}
		if home != col.Type {
			col.SetType(body, home)
		}
		if col.Format == 1 && x.view.Catalog.BinaryCarriesOIDs(home) {
			rows.types[i], rows.active = home, true
		}
	}
	return nil
}

func errUnknownType(l *Link, oid uint32) error {
	return pgerr.Unsupported(
		"a type of shard "+string(l.shard)+" is not known on the home shard",
		"Create the type through the router, so that all shards have it; cast the value to text meanwhile.").
		WithDetail(pgerr.Newf("", "The type's OID on the shard is %d.", oid).Message)
}

func (x *Executor) relayParameters(l *Link, s *step, frame wire.Frame, silent bool) error {
	types, err := wire.DecodeParameterDescription(nil, frame.Body)
	if err != nil {
		return err
	}
	for i, t := range types {
		home, ok := l.oids.ToHome(t)
		if !ok {
			return errUnknownType(l, t)
		}
		types[i] = home
		wire.SetParameterType(frame.Body, i, home)
	}
	if s.seen != nil {
		s.seen.Parameters = types
	}
	return x.relay(frame.Raw, silent)
}

// relayRow sends a row; its bytes are not looked at unless they hold OIDs of the shard.
func (x *Executor) relayRow(l *Link, s *step, frame wire.Frame) error {
	if rows := l.translationOf(s); rows.active {
		if err := x.translateRow(l, rows, frame.Body); err != nil {
			return err
		}
	}
	return x.out.Append(frame.Raw)
}

// translateRow rewrites a row to the home shard's OIDs, in place: the frame is ours until the next one is
// read, and an OID has a fixed width.
func (x *Executor) translateRow(l *Link, rows *rowTranslation, body []byte) error {
	row := wire.NewRow(body)
	for i := 0; ; i++ {
		value, ok := row.Next()
		if !ok {
			return row.Err()
		}
		if value != nil && i < len(rows.types) && rows.types[i] != 0 {
			if err := (translation{x.view.Catalog, l.oids.ToHome, true}).value(rows.types[i], value, 0); err != nil {
				return err
			}
		}
	}
}

// translation rewrites the OIDs within binary values, in place.
type translation struct {
	catalog *catalog.Snapshot
	oid     func(uint32) (uint32, bool)
	toHome  bool // the value holds a shard's OIDs; else the home shard's
}

// maxDepth bounds arrays within composites within arrays ….
const maxDepth = 64

// value rewrites one value of a type (the home shard's OID).
func (t translation) value(typeOID uint32, value []byte, depth int) error {
	if depth > maxDepth {
		return errBinary("is nested too deeply")
	}
	typeOID = t.catalog.BaseType(typeOID)
	if catalog.IsOIDAlias(typeOID) {
		return t.alias(typeOID, value)
	}
	if !t.catalog.BinaryCarriesOIDs(typeOID) {
		return nil
	}
	typ, ok := t.catalog.TypeByOID(typeOID)
	if !ok {
		return errBinary("has a type that the catalog does not know")
	}
	switch {
	case typ.IsArray():
		return t.array(typ.Elem, value, depth)
	case typ.Kind == 'c', typ.OID == recordOID:
		return t.record(value, depth)
	case typ.OID == recordArrayOID:
		return t.array(recordOID, value, depth)
	case typ.Kind == 'r':
		_, err := t.rangeValue(typ.Subtype, value, depth)
		return err
	case typ.Kind == 'm':
		return t.multirange(typ.Subtype, value, depth)
	}
	return errBinary("has a type whose binary form is not known")
}

// The OIDs of record and record[].
const (
	recordOID      = 2249
	recordArrayOID = 2287
	regtypeOID     = 2206
)

// alias rewrites a reg* value. Only types can be named on another shard; Postgres's own objects are the same everywhere.
func (t translation) alias(typeOID uint32, value []byte) error {
	if len(value) != 4 {
		return errBinary("is cut short")
	}
	oid := binary.BigEndian.Uint32(value)
	if typeOID == regtypeOID {
		return t.put(value, oid)
	}
	if oid >= firstUserOID {
		return pgerr.Unsupported("a reg* value in binary format names another object on each shard",
			"Ask for the value in text format, or cast it to text.")
	}
	return nil
}

func (t translation) put(at []byte, oid uint32) error {
	other, ok := t.oid(oid)
	if !ok {
		return pgerr.Unsupported("a value holds a type that is not known on both shards",
			"Ask for the value in text format, or cast it to text.")
	}
	binary.BigEndian.PutUint32(at, other)
	return nil
}

// homeOID is the home shard's OID of one found in a value.
func (t translation) homeOID(oid uint32) (uint32, error) {
	if !t.toHome {
		return oid, nil
	}
	home, ok := t.oid(oid)
	if !ok {
		return 0, pgerr.Unsupported("a value holds a type that is not known on the home shard",
			"Ask for the value in text format, or cast it to text.")
	}
	return home, nil
}

// array rewrites an array: dimensions, flags, element type, then a length and bound for each dimension.
func (t translation) array(elem uint32, value []byte, depth int) error {
	if len(value) < 12 {
		return errBinary("is cut short")
	}
	dimensions := int(int32(binary.BigEndian.Uint32(value)))
	found, err := t.homeOID(binary.BigEndian.Uint32(value[8:]))
	if err != nil {
		return err
	}
	if err := t.put(value[8:], binary.BigEndian.Uint32(value[8:])); err != nil {
		return err
	}
	if dimensions < 0 || dimensions > 6 || len(value) < 12+8*dimensions {
		return errBinary("is cut short")
	}
	if found != elem && elem != recordOID {
		elem = found // a domain's array
	}
	rest := value[12+8*dimensions:]
	for len(rest) > 0 {
		var element []byte
		if element, rest, err = cutValue(rest); err != nil {
			return err
		}
		if element != nil {
			if err := t.value(elem, element, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// record rewrites a composite: the number of fields, then type, length and bytes of each.
func (t translation) record(value []byte, depth int) error {
	if len(value) < 4 {
		return errBinary("is cut short")
	}
	rest := value[4:]
	for range binary.BigEndian.Uint32(value) {
		if len(rest) < 8 {
			return errBinary("is cut short")
		}
		home, err := t.homeOID(binary.BigEndian.Uint32(rest))
		if err != nil {
			return err
		}
		if err := t.put(rest, binary.BigEndian.Uint32(rest)); err != nil {
			return err
		}
		var field []byte
		if field, rest, err = cutValue(rest[4:]); err != nil {
			return err
		}
		if field != nil {
			if err := t.value(home, field, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flags of a range's binary form.
const (
	rangeEmpty         = 0x01
	rangeLowerInfinite = 0x08
	rangeUpperInfinite = 0x10
	rangeLowerNull     = 0x20
	rangeUpperNull     = 0x40
)

func (t translation) rangeValue(subtype uint32, value []byte, depth int) (rest []byte, err error) {
	if len(value) < 1 {
		return nil, errBinary("is cut short")
	}
	flags := value[0]
	rest = value[1:]
	for _, absent := range []byte{rangeLowerInfinite | rangeLowerNull, rangeUpperInfinite | rangeUpperNull} {
		if flags&(rangeEmpty|absent) != 0 {
			continue
		}
		var bound []byte
		if bound, rest, err = cutValue(rest); err != nil {
			return nil, err
		}
		if err := t.value(subtype, bound, depth+1); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (t translation) multirange(subtype uint32, value []byte, depth int) error {
	if len(value) < 4 {
		return errBinary("is cut short")
	}
	rest := value[4:]
	for range binary.BigEndian.Uint32(value) {
		one, more, err := cutValue(rest)
		if err != nil {
			return err
		}
		if _, err := t.rangeValue(subtype, one, depth+1); err != nil {
			return err
		}
		rest = more
	}
	return nil
}

// cutValue takes a length and as many bytes off the front; nil is NULL.
func cutValue(b []byte) (value, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errBinary("is cut short")
	}
	n := int32(binary.BigEndian.Uint32(b))
	if n == -1 {
		return nil, b[4:], nil
	}
	if n < 0 || int(n) > len(b)-4 {
		return nil, nil, errBinary("is cut short")
	}
	return b[4 : 4+n], b[4+n:], nil
}

func errBinary(what string) error {
	return pgerr.New("22P03", "a value in binary format "+what)
}

// ToShardTypes translates declared parameter types; the slice is copied if any changes.
func (l *Link) toShardTypes(types []uint32) ([]uint32, error) {
	if l.oids == nil {
		return types, nil
	}
	translated := types
	for i, t := range types {
		there, ok := l.oids.ToShard(t)
		if !ok {
			return nil, pgerr.Newf("42704", "type with OID %d does not exist on shard %s", t, l.shard)
		}
		if there != t {
			if &translated[0] == &types[0] {
				translated = slices.Clone(types)
			}
			translated[i] = there
		}
	}
	return translated, nil
}

// NeedsParameterTypes reports whether binary parameters may hold OIDs that have to be translated for the
// link, so that the types of the parameters must be known.
func (l *Link) NeedsParameterTypes(bind *wire.Bind) bool {
	return l.oids != nil && slices.ContainsFunc(bind.Formats, func(f int16) bool { return f == 1 })
}

// TranslateParameters rewrites the parameters of a Bind for the link; bind's values are changed in place.
func (x *Executor) TranslateParameters(l *Link, bind *wire.Bind, types []uint32) error {
	for i, value := range bind.Params {
		if value == nil || bind.Format(i) != 1 || i >= len(types) || !x.view.Catalog.BinaryCarriesOIDs(types[i]) {
			continue
		}
		if err := (translation{x.view.Catalog, l.oids.ToShard, false}).value(types[i], value, 0); err != nil {
			return err
		}
	}
	return nil
}
