package catalog

// Comparison is what an operator says about its two sides.
type Comparison uint8

// The comparisons of a btree operator family.
const (
	NoComparison Comparison = iota
	Equal
	NotEqual // not in any family, but the negation of Equal
	Less
	LessEqual
	Greater
	GreaterEqual
)

// Commute is the comparison with the sides exchanged.
func (c Comparison) Commute() Comparison {
	switch c {
	case Less:
		return Greater
	case LessEqual:
		return GreaterEqual
	case Greater:
		return Less
	case GreaterEqual:
		return LessEqual
	}
	return c
}

// KeyComparison is a built-in comparison operator that belongs to the operator families of a key
// type.
type KeyComparison struct {
	Comparison Comparison
	// Order: it belongs to the btree family of both types, so that it follows the order in which
	// RANGE partitions are cut.
	Order bool
	// Hash: equality belongs to the hash family of both types, so that equal values hash alike.
	Hash bool
	// Stable: the result depends on settings (date and timestamp against timestamptz use TimeZone).
	Stable bool
}

type keyFamily uint8

const (
	noFamily keyFamily = iota
	integerFamily
	textFamily
	uuidFamily
	dateFamily
	timestampFamily
	timestamptzFamily
	numericFamily
	byteaFamily
	boolFamily
)

// varchar has no operators of its own: the parser relabels it as text.
var keyFamilies = map[uint32]keyFamily{
	16: boolFamily, 17: byteaFamily, 20: integerFamily, 21: integerFamily, 23: integerFamily,
	25: textFamily, 1043: textFamily, 1082: dateFamily, 1114: timestampFamily,
	1184: timestamptzFamily, 1700: numericFamily, 2950: uuidFamily,
}

var comparisons = map[string]Comparison{
	"=": Equal, "<>": NotEqual, "!=": NotEqual,
	"<": Less, "<=": LessEqual, ">": Greater, ">=": GreaterEqual,
}

// KeyOperator tells what the built-in operator name with operands of exactly these types is; domains
// must have been followed to their base (Snapshot.BaseType). false: it is not one of the operators by
// which keys of the supported types are compared (int8 = float8 and text = bpchar, for example, are
// not). User-defined operators of the same name are the caller's care (Snapshot.UserOperators).
//
// Source: pg_amop of the families integer_ops, text_ops, uuid_ops, datetime_ops, date_ops,
// timestamp_ops, timestamptz_ops, numeric_ops, bytea_ops, bool_ops; a test compares with a live
// Postgres.
func KeyOperator(name string, left, right uint32) (KeyComparison, bool) {
	comparison := comparisons[name]
	l, r := keyFamilies[left], keyFamilies[right]
	if comparison == NoComparison || l == noFamily || r == noFamily {
		return KeyComparison{}, false
	}
	if l == r {
		return KeyComparison{Comparison: comparison, Order: true, Hash: true}, true
	}
	if isDatetime(l) && isDatetime(r) {
		stable := (l == timestamptzFamily) != (r == timestamptzFamily)
		return KeyComparison{Comparison: comparison, Order: true, Stable: stable}, true
	}
	return KeyComparison{}, false
}

func isDatetime(f keyFamily) bool {
	return f == dateFamily || f == timestampFamily || f == timestamptzFamily
}
