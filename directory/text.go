package directory

import (
	"encoding/hex"
	"strconv"
)

// Text gives the canonical text of the value: what Postgres's output function
// gives under DateStyle ISO, TimeZone UTC and bytea_output hex. [ParseText] reads
// it back to an equal value. The text of NULL is empty: test [Value.IsNull] first.
func (v Value) Text() string {
	if v.null {
		return ""
	}
	switch v.t {
	case Int2, Int4, Int8:
		return strconv.FormatInt(v.i, 10)
	case Text, Varchar:
		return v.s
	case UUID:
		return v.uuidText()
	case Date:
		return dateText(v.i)
	case Timestamp, Timestamptz:
		return timestampText(v.t, v.i)
	case Numeric:
		return numericText(v)
	case Bytea:
		return `\x` + hex.EncodeToString([]byte(v.s))
	case Bool:
		if v.i != 0 {
			return "t"
		}
		return "f"
	}
	return ""
}

func (v Value) uuidText() string {
	high, low := hex64(uint64(v.i)), hex64(v.j)
	return high[:8] + "-" + high[8:12] + "-" + high[12:] + "-" + low[:4] + "-" + low[4:]
}
