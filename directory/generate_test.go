package directory_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random values; 0 takes a new one")

// newRandom gives a source of random numbers whose seed is in the test's log.
func newRandom(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (go test -seed %d)", seed, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func mustParse(t testing.TB, typ directory.KeyType, text string) directory.Value {
	t.Helper()
	v, err := directory.ParseText(typ, text)
	if err != nil {
		t.Fatalf("%s %q: %v", typ, text, err)
	}
	return v
}

// edges are texts of values at the limits of each type; all servers accept them.
var edges = map[directory.KeyType][]string{
	directory.Int2: {"0", "-0", "+1", "-1", "32767", "-32768", " 7 ", "007", "\t5\n"},
	directory.Int4: {"0", "-1", "2147483647", "-2147483648", "1", "00000000000000000000000000000012"},
	directory.Int8: {"0", "-1", "1", "9223372036854775807", "-9223372036854775808", "4294967296", "-4294967296", "4294967295",
		"-2147483649", "2147483648", "-2147483648"},
	directory.Text:    {"", " ", "a", "abcdefghijk", "abcdefghijkl", "abcdefghijklm", "ä", "日本語", "a'b\\c", "\x01", strings.Repeat("x", 5000)},
	directory.Varchar: {"", "trailing  ", "ab", "€uro", strings.Repeat("日", 24)},
	directory.UUID: {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11"},
	directory.Date: {"infinity", "-infinity", "2000-01-01", "1999-12-31", "4714-11-24 BC", "5874897-12-31", "0001-01-01",
		"0001-12-31 BC", "2024-02-29", "2024-2-9", "0001-02-29 BC", "2024-01-02 +05", "10000-01-01"},
	directory.Timestamp: {"infinity", "-infinity", "2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC",
		"294276-12-31 23:59:59.999999", "2024-02-29T12:34:56.789", "2024-01-02", "2024-01-02 10:00", "2024-01-02 10:00:00+05",
		"2024-01-02 03:04:05.1234567", "2024-12-31 23:59:59.9999999", "2024-01-02 10:00:00Z", "2024-01-02 +05"},
	directory.Timestamptz: {"infinity", "-infinity", "2000-01-01 00:00:00+00", "1999-12-31 23:59:59.999999-08:30",
		"4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "2024-02-29T12:34:56.789Z", "2024-01-02 10:00 UTC",
		"2024-01-02 10:00:00+15:59:59", "2024-01-02 10:00:00-15:59:59", "2024-01-02 03:04:05.999999999+02", "0044-03-15 12:00:00+01 BC",
		"2024-01-02 +05", "2024-01-02 10:00:00 gmt"},
	directory.Numeric: {"0", "-0", "0.000", "-0.00", "NaN", "nan", "Infinity", "-Infinity", "inf", "+inf", "1", "-1", "10000", "10000.0000",
		"0.0001", "0.00001", "1e100", "1e-100", "1.50", "1.5", "-1.5", "9999", "99999999", "1234567890.0123456789", ".5", "5.", "1e5", "1.e2",
		"100000000", "100000000.00", "1E+3", "0e500", "123e-5", "1e131071", "1e-16383", "0e131072"},
	directory.Bytea: {"", `\x`, `\x00`, `\xDEADbeef`, `\x de ad`, `a\\b\001\377`, "plain", `\x000102030405060708090a0b0c0d0e0f`},
	directory.Bool:  {"t", "f", "true", "FALSE", "y", "n", "yes", "no", "on", "of", "OFF", "1", "0", " tr ", "fals"},
}

// randomText gives the text of a random value of the type, which every server accepts.
func randomText(r *rand.Rand, t directory.KeyType) string {
	if r.IntN(50) == 0 {
		return edges[t][r.IntN(len(edges[t]))]
	}
	switch t {
	case directory.Int2:
		return strconv.Itoa(int(int16(skewed(r))))
	case directory.Int4:
		return strconv.Itoa(int(int32(skewed(r))))
	case directory.Int8:
		return strconv.FormatInt(skewed(r), 10)
	case directory.Text, directory.Varchar:
		return randomString(r)
	case directory.UUID:
		return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<16), r.IntN(1<<16), r.Uint64()>>16)
	case directory.Date:
		return randomDate(r, 6000)
	case directory.Timestamp:
		return randomDate(r, 4000) + " " + randomTime(r)
	case directory.Timestamptz:
		return randomDate(r, 4000) + []string{" ", "T"}[r.IntN(2)] + randomTime(r) + randomZone(r)
	case directory.Numeric:
		return randomNumeric(r)
	case directory.Bytea:
		return fmt.Sprintf(`\x%x`, randomString(r))
	case directory.Bool:
		return []string{"true", "false"}[r.IntN(2)]
	}
	panic("unknown type")
}

// skewed gives numbers of all lengths, of both signs.
func skewed(r *rand.Rand) int64 { return int64(r.Uint64()) >> r.IntN(64) }

func randomString(r *rand.Rand) string {
	letters := []rune("abcxyzABC019 _-'\\\"%äß€日😀\t\n")
	text := make([]rune, r.IntN(30))
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return string(text)
}

func randomDate(r *rand.Rand, years int) string {
	return fmt.Sprintf("%04d-%02d-%02d", 1+r.IntN(years), 1+r.IntN(12), 1+r.IntN(28))
}

func randomTime(r *rand.Rand) string {
	text := fmt.Sprintf("%02d:%02d:%02d", r.IntN(24), r.IntN(60), r.IntN(60))
	if digits := r.IntN(10); digits > 0 {
		text += "." + fmt.Sprintf("%09d", r.IntN(1e9))[:digits]
	}
	return text
}

func randomZone(r *rand.Rand) string {
	switch r.IntN(4) {
	case 0:
		return "Z"
	case 1:
		return fmt.Sprintf(" %c%02d", "+-"[r.IntN(2)], r.IntN(16))
	case 2:
		return fmt.Sprintf("%c%02d:%02d", "+-"[r.IntN(2)], r.IntN(16), r.IntN(60))
	}
	return fmt.Sprintf("%c%02d:%02d:%02d", "+-"[r.IntN(2)], r.IntN(16), r.IntN(60), r.IntN(60))
}

func randomNumeric(r *rand.Rand) string {
	text := ""
	if r.IntN(2) == 0 {
		text = "-"
	}
	digits := func(most int) string {
		n := r.IntN(most)
		b := make([]byte, n)
		for i := range b {
			b[i] = "0000123456789"[r.IntN(13)]
		}
		return string(b)
	}
	text += "0" + digits(25)
	if r.IntN(2) == 0 {
		text += "." + digits(20)
	}
	if r.IntN(5) == 0 {
		text += "e" + strconv.Itoa(r.IntN(60)-30)
	}
	return text
}

// mutate changes a text at random, mostly into nonsense near the type's syntax.
func mutate(r *rand.Rand, text string) string {
	alphabet := "0123456789+-. eE:TZ/_xXbo{}\\,'nNaAiIfFyY\tBCu"
	b := []byte(text)
	if len(b) > 60 {
		b = b[:60]
	}
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b) + 1)
		c := alphabet[r.IntN(len(alphabet))]
		switch {
		case r.IntN(3) == 0 || at == len(b):
			b = append(b[:at], append([]byte{c}, b[at:]...)...)
		case r.IntN(2) == 0:
			b = append(b[:at], b[at+1:]...)
		default:
			b[at] = c
		}
	}
	return strings.ToValidUTF8(string(b), "?")
}

// hostile are texts around which reading could go wrong.
var hostile = []string{
	"", " ", "0x10", "0o7", "0b1", "1_000", "_1", "1_", "--1", "+", "-", "1 2", "1e", "1e+", "e5", ".", "-.", "..5", "1.2.3", "1e 5",
	"1e999999999999", "1e-999999999999", "1e131072", "1e-16384", "1e1073741823", "9223372036854775808", "-9223372036854775809", "32768", "-32769",
	"2147483648", "today", "now", "epoch", "tomorrow", "2024-13-01", "2024-02-30", "2023-02-29", "0000-01-01", "01/02/2024", "2024-01-02 24:00:00",
	"2024-01-02 23:59:60", "2024-01-02 10:61", "2024-01-02 10:00:00 PST", "2024-01-02 10:00:00+16", "2024-01-02 10:00:00+1", "5874898-01-01",
	"4714-11-23 BC", "4713-01-01 BC", "294277-01-01 00:00:00", "4714-11-23 23:59:59.999999 BC", "2024-01-02-05", "2024-01-02+05", "2024-01-02Z", "2024-01-02 BC +05",
	"4714-11-24 00:00:00+01 BC", "294276-12-31 23:59:59.999999-01", "294276-12-31 23:59:59.9999999", "2024-01-02T", "2024-01-02 T10:00", "2024-01-02 10:00 BC",
	"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0-eebc999c0b4ef8bb6d6bb9bd380a11", "{}", "{",
	`\`, `\x1`, `\x1 2`, `\400`, `\00`, `\xzz`, "o", "tru e", "truee", "yess", "offf", "2", "Infinit", "-nan", "+nan", "infinity ", " -Infinity",
	"+infinity", "0_0", "00", "1\v", "\f1", "-9223372036854775808", "１", "2024-01-02 10:00:00.", "2024-01-02 10:00:00.5.5", "2024-01-02  10:00:00",
	"12024-01-02", "2024-1-2 1:2:3", "20240102", "2024-01-02 10:00:00utc", "2024-01-02 100000", "2024-001", "-2024-01-02", "J2451545",
}

// randomWire gives bytes that are mostly near the binary form of a type.
func randomWire(r *rand.Rand, t directory.KeyType, n int) []byte {
	length := map[directory.KeyType]int{
		directory.Int2: 2, directory.Int4: 4, directory.Int8: 8, directory.UUID: 16, directory.Date: 4,
		directory.Timestamp: 8, directory.Timestamptz: 8, directory.Bool: 1,
	}[t]
	switch {
	case t == directory.Numeric:
		return randomNumericWire(r)
	case length == 0:
		length = r.IntN(6)
	case n%5 == 0:
		length = max(0, length+r.IntN(3)-1)
	}
	wire := make([]byte, length)
	for i := range wire {
		wire[i] = byte(r.Uint32())
		if length < 6 && t.Family() == directory.FamilyText && r.IntN(2) == 0 {
			wire[i] &= 0x7f
		}
	}
	return wire
}

func randomNumericWire(r *rand.Rand) []byte {
	count := r.IntN(6)
	signs := []uint16{0, 0, 0, 0x4000, 0x4000, 0xC000, 0xD000, 0xF000, 1}
	words := []uint16{uint16(count), uint16(r.IntN(8) - 4), signs[r.IntN(len(signs))], uint16(r.IntN(20))}
	for range count {
		words = append(words, uint16(r.IntN(10_000)))
		if r.IntN(3) == 0 {
			words[len(words)-1] = 0
		}
	}
	if r.IntN(8) == 0 {
		words[r.IntN(len(words))] = uint16(r.Uint32())
	}
	var wire []byte
	for _, w := range words {
		wire = binary.BigEndian.AppendUint16(wire, w)
	}
	return wire
}
