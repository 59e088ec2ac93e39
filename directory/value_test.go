package directory_test

import (
	"errors"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// TestParseTextTellsUncertainFromInvalid fixes the two where callers see a difference.
func TestParseTextTellsUncertainFromInvalid(t *testing.T) {
	cases := []struct {
		typ  directory.KeyType
		text string
		want error
	}{
		{directory.Int8, "0x10", directory.ErrUncertain},
		{directory.Int8, "1_000", directory.ErrUncertain},
		{directory.Int8, "", directory.ErrInvalid},
		{directory.Int8, "5.0", directory.ErrInvalid},
		{directory.Int8, "9223372036854775808", directory.ErrInvalid},
		{directory.Int2, "32768", directory.ErrInvalid},
		{directory.Int8, "100000000000000000000000", directory.ErrInvalid},
		{directory.Date, "today", directory.ErrUncertain},
		{directory.Date, "01/02/2024", directory.ErrUncertain},
		{directory.Date, "2024-02-30", directory.ErrInvalid},
		{directory.Timestamp, "now", directory.ErrUncertain},
		{directory.Timestamptz, "2024-01-02 10:00:00", directory.ErrUncertain},
		{directory.Timestamptz, "2024-01-02", directory.ErrUncertain},
		{directory.Timestamptz, "2024-01-02 10:00:00 PST", directory.ErrUncertain},
		{directory.Numeric, "0x1F", directory.ErrUncertain},
		{directory.Numeric, "1_0.5", directory.ErrUncertain},
		{directory.Numeric, "1e", directory.ErrInvalid},
		{directory.UUID, "a0eebc99", directory.ErrInvalid},
		{directory.Text, "a\x00b", directory.ErrInvalid},
		{directory.Text, "\xff", directory.ErrInvalid},
		{directory.Bool, "o", directory.ErrInvalid},
		{directory.Bytea, `\x1`, directory.ErrInvalid},
		{0, "1", directory.ErrInvalid},
	}
	for _, c := range cases {
		if _, err := directory.ParseText(c.typ, c.text); !errors.Is(err, c.want) {
			t.Errorf("%s %q: %v, want %v", c.typ, c.text, err, c.want)
		}
	}
}

func TestNullIsLastAndHasNoHash(t *testing.T) {
	for _, typ := range directory.KeyTypes() {
		null := directory.Null(typ)
		if !null.IsNull() || null.Type() != typ || null.Literal() != "NULL" || directory.KeyHash([]directory.Value{null}) != 0 {
			t.Errorf("NULL of %s is %v", typ, null)
		}
		for _, text := range edges[typ] {
			v := mustParse(t, typ, text)
			if directory.Compare(v, null) >= 0 || directory.Compare(null, v) <= 0 || directory.Compare(null, directory.Null(typ)) != 0 {
				t.Errorf("NULL is not after %s %q", typ, text)
			}
		}
		if stored, err := directory.Coerce(null, directory.Text, -1); err != nil || !stored.IsNull() || stored.Type() != directory.Text {
			t.Errorf("NULL of %s is stored as %v, %v", typ, stored, err)
		}
	}
}

func TestLiterals(t *testing.T) {
	cases := map[string]struct {
		typ  directory.KeyType
		text string
	}{
		"-5": {directory.Int4, "-5"}, "'it''s'": {directory.Text, "it's"}, `E'a\\b'`: {directory.Text, `a\b`},
		"1.50": {directory.Numeric, "1.50"}, "'NaN'": {directory.Numeric, "NaN"}, "true": {directory.Bool, "y"},
		"'2024-01-02'": {directory.Date, "2024-1-2"}, `E'\\x00ff'`: {directory.Bytea, `\x00ff`},
		"'2024-01-02 09:00:00+00'": {directory.Timestamptz, "2024-01-02 10:00+01"},
	}
	for want, c := range cases {
		if got := mustParse(t, c.typ, c.text).Literal(); got != want {
			t.Errorf("literal of %s %q: %s, want %s", c.typ, c.text, got, want)
		}
	}
}

func TestKeyTypes(t *testing.T) {
	for _, typ := range directory.KeyTypes() {
		if found, ok := directory.KeyTypeOf(typ.OID()); !ok || found != typ || typ.Family() == 0 {
			t.Errorf("%s is found as %s", typ, found)
		}
	}
	if _, ok := directory.KeyTypeOf(701); ok {
		t.Error("float8 is a key type")
	}
	if directory.Bool.Allows(directory.MethodRange) || !directory.Bool.Allows(directory.MethodHash) || directory.Int4.Allows("magic") {
		t.Error("wrong methods are allowed")
	}
	if _, err := directory.IntValue(directory.Int2, 40000); !errors.Is(err, directory.ErrOutOfRange) {
		t.Errorf("int2 40000: %v", err)
	}
}
