package directory

import "fmt"

// KeyType is the type of a key column: one of the Postgres types whose order
// and hash this package knows exactly. The zero KeyType is invalid.
type KeyType uint8

// The key types.
const (
	Int2 KeyType = iota + 1
	Int4
	Int8
	Text
	Varchar
	UUID
	Date
	Timestamp
	Timestamptz
	Numeric
	Bytea
	Bool
)

// Family is a hash operator family of Postgres: values of types of one family
// that are equal have the same hash, so that tables whose keys are of one family
// can be colocated.
type Family uint8

// The families, named after Postgres's hash operator families.
const (
	FamilyInteger     Family = iota + 1 // integer_ops: int2, int4, int8
	FamilyText                          // text_ops: text, varchar
	FamilyUUID                          // uuid_ops
	FamilyDate                          // date_ops
	FamilyTimestamp                     // timestamp_ops
	FamilyTimestamptz                   // timestamptz_ops
	FamilyNumeric                       // numeric_ops
	FamilyBytea                         // bytea_ops
	FamilyBool                          // bool_ops
)

var keyTypes = [...]struct {
	name   string
	oid    uint32
	family Family
}{
	Int2:        {"int2", 21, FamilyInteger},
	Int4:        {"int4", 23, FamilyInteger},
	Int8:        {"int8", 20, FamilyInteger},
	Text:        {"text", 25, FamilyText},
	Varchar:     {"varchar", 1043, FamilyText},
	UUID:        {"uuid", 2950, FamilyUUID},
	Date:        {"date", 1082, FamilyDate},
	Timestamp:   {"timestamp", 1114, FamilyTimestamp},
	Timestamptz: {"timestamptz", 1184, FamilyTimestamptz},
	Numeric:     {"numeric", 1700, FamilyNumeric},
	Bytea:       {"bytea", 17, FamilyBytea},
	Bool:        {"bool", 16, FamilyBool},
}

// KeyTypes gives all key types in ascending order.
func KeyTypes() []KeyType {
	all := make([]KeyType, 0, len(keyTypes)-1)
	for t := Int2; t <= Bool; t++ {
		all = append(all, t)
	}
	return all
}

// KeyTypeOf gives the key type of a built-in type's OID; false when the type
// cannot be a key.
func KeyTypeOf(typeOID uint32) (KeyType, bool) {
	for t := Int2; t <= Bool; t++ {
		if keyTypes[t].oid == typeOID {
			return t, true
		}
	}
	return 0, false
}

// keyTypeNamed gives the key type of a name as [KeyType.String] gives it.
func keyTypeNamed(name string) (KeyType, bool) {
	for t := Int2; t <= Bool; t++ {
		if keyTypes[t].name == name {
			return t, true
		}
	}
	return 0, false
}

func (t KeyType) valid() bool { return t >= Int2 && t <= Bool }

// OID gives the type's OID in pg_type, the same on every server; 0 for an invalid type.
func (t KeyType) OID() uint32 {
	if !t.valid() {
		return 0
	}
	return keyTypes[t].oid
}

// Family gives the type's hash operator family; 0 for an invalid type.
func (t KeyType) Family() Family {
	if !t.valid() {
		return 0
	}
	return keyTypes[t].family
}

// String gives the type's name in pg_type, for example "int8".
func (t KeyType) String() string {
	if !t.valid() {
		return fmt.Sprintf("KeyType(%d)", uint8(t))
	}
	return keyTypes[t].name
}

// Allows reports whether the method can partition by a column of this type.
// Bool has two values, so RANGE makes no sense for it. RANGE on text and varchar
// additionally needs a column under the C collation, which only the catalog
// knows: who adds the table must check that.
func (t KeyType) Allows(m Method) bool {
	if !t.valid() {
		return false
	}
	switch m {
	case MethodRange:
		return t != Bool
	case MethodList, MethodHash, MethodDirectory:
		return true
	}
	return false
}

// integral reports whether the values are whole numbers held in Value.i, so that
// the order is discrete and is that of int64.
func (t KeyType) integral() bool {
	switch t {
	case Int2, Int4, Int8, Date, Timestamp, Timestamptz, Bool:
		return true
	}
	return false
}
