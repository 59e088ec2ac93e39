package copyrow

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// variant is a COPY statement's options in both forms.
type variant struct {
	sql     string
	options Options
	tokens  []string
}

var (
	textTokens = []string{
		"\n", "\n", "\n", "\n", "\t", "\t", "\t", "\t", "\t", "a", "b", "", `\`, `\\`, `\N`, `\.`, `\.` + "\n", "\r", "\r\n", "|", "x", `\x41`, `\101`,
		`\t`, `\n`, `\` + "\n", `\` + "\t", `\0`, `\xe4`, "ä", "null", "a\tb\tc\n", "a\tb\tc\n", "a\tb\tc\n", "a\tb\tc\r\n", "\na\tb\tc", `"`,
	}
	csvTokens = []string{
		"\n", "\n", "\n", ",", ",", ",", ",", "a", "b", `"`, `"`, `""`, `"`, `\`, `\.`, `\.` + "\n", "\r", "\r\n", "'", "|", "null", `""""`, `"x"`, `"x,y"`,
		`"x` + "\n" + `y"`, `"x` + "\r" + `y"`, "a,b,c\n", "a,b,c\n", `"a",b,"c"` + "\n", "a,b,c\r\n", "ä", `\"`, `"a\"b"`, `"` + "\n\n\r\n" + `",b,c`,
	}
)

var variants = []variant{
	{"", Options{}, textTokens},
	{"(DELIMITER '|', NULL 'null')", Options{Delimiter: '|', Null: "null", HasNull: true}, append([]string{"|", "|", "a|b|c\n"}, textTokens...)},
	{"(HEADER)", Options{Header: true}, textTokens},
	{"(NULL '')", Options{HasNull: true}, textTokens},
	{"(FORMAT csv)", Options{Format: CSV}, csvTokens},
	{"(FORMAT csv, HEADER)", Options{Format: CSV, Header: true}, csvTokens},
	{"(FORMAT csv, ESCAPE '\\')", Options{Format: CSV, Escape: '\\'}, csvTokens},
	{"(FORMAT csv, QUOTE '''', ESCAPE '\"', DELIMITER '|')", Options{Format: CSV, Quote: '\'', Escape: '"', Delimiter: '|'}, csvTokens},
	{"(FORMAT csv, NULL 'null', FORCE_NOT_NULL (a, b), FORCE_NULL (c))",
		Options{Format: CSV, Null: "null", HasNull: true, ForceNotNull: []bool{true, true, false}, ForceNull: []bool{false, false, true}}, csvTokens},
}

const perVariant = 200

var seedFlag = flag.Uint64("seed", 0, "seed of the random data; 0 takes one from the clock")

// newSeed is the seed of a test's random data.
func newSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return seed
}

// Random data is copied into a plain table, and split over two tables as a router would: the same rows, or the same error
// of the same line.
func TestAgainstPostgres(t *testing.T) {
	seed := newSeed(t)
	p := newPair(t)
	for i, v := range variants {
		t.Run(v.sql, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range perVariant {
				var data strings.Builder
				for range random.IntN(40) {
					data.WriteString(v.tokens[random.IntN(len(v.tokens))])
				}
				p.check(t, v, []byte(data.String()), random)
			}
		})
	}
}

// Lines end with a carriage return, and a line of nothing but a newline, which is an error, comes to a server behind the first
// line that it sees: the two together would be another style of lines.
func TestNewlineBehindReturn(t *testing.T) {
	p := newPair(t)
	for _, v := range variants {
		line := "a,b,c\r"
		switch {
		case v.options.Delimiter != 0:
			line = strings.ReplaceAll(line, ",", string(v.options.Delimiter))
		case v.options.Format == Text:
			line = strings.ReplaceAll(line, ",", "\t")
		}
		for seed := range uint64(10) {
			p.check(t, v, []byte(line+line+line+"\n"+line), rand.New(rand.NewPCG(seed, 0)))
		}
	}
}

func TestBinaryAgainstPostgres(t *testing.T) {
	seed := newSeed(t)
	p := newPair(t)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 4 * perVariant {
		data := []byte(Signature)
		extension := max(random.IntN(12)-8, 0)
		data = binary.BigEndian.AppendUint32(data, uint32(random.IntN(2)))
		data = binary.BigEndian.AppendUint32(data, uint32(extension))
		data = append(data, make([]byte, extension)...)
		for range random.IntN(6) {
			data = binary.BigEndian.AppendUint16(data, 3)
			for range 3 {
				n := random.IntN(5) - 1
				data = binary.BigEndian.AppendUint32(data, uint32(n))
				data = append(data, "abcdef"[:max(n, 0)]...)
			}
		}
		if random.IntN(2) == 0 {
			data = append(data, Trailer...)
		}
		for random.IntN(3) == 0 { // damage
			switch at := random.IntN(len(data) + 1); random.IntN(3) {
			case 0:
				data = data[:at]
			case 1:
				data = slices.Insert(data, at, byte(random.IntN(3)))
			default:
				if at < len(data) {
					data[at] = []byte{0, 1, 0xff, 0x7f}[random.IntN(4)]
				}
			}
		}
		p.check(t, variant{"(FORMAT binary)", Options{Format: Binary}, nil}, data, random)
	}
}

// pair has a plain table and two parts.
type pair struct {
	conn *pgx.Conn
}

func newPair(t *testing.T) *pair {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	conn, err := pgx.Connect(ctx, cluster.ConnString(0, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	p := &pair{conn}
	p.exec(t, "SET client_min_messages = error")
	for _, name := range []string{"plain", "part0", "part1"} {
		p.exec(t, "CREATE TEMP TABLE "+name+" (n serial, a text, b text, c text)")
	}
	return p
}

func (p *pair) exec(t *testing.T, sql string) {
	if _, err := p.conn.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) copy(table string, v variant, data []byte) *pgconn.PgError {
	_, err := p.conn.PgConn().CopyFrom(context.Background(), bytes.NewReader(data), "COPY "+table+" (a, b, c) FROM STDIN "+v.sql)
	var reported *pgconn.PgError
	if err != nil && !errors.As(err, &reported) {
		panic(err)
	}
	return reported
}

func (p *pair) rows(t *testing.T, table string) (rows []string) {
	found, err := p.conn.Query(context.Background(), "SELECT quote_nullable(a) || ' ' || quote_nullable(b) || ' ' || quote_nullable(c) FROM "+table+" ORDER BY n")
	if err == nil {
		rows, err = pgx.CollectRows(found, pgx.RowTo[string])
	}
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func (p *pair) check(t *testing.T, v variant, data []byte, random *rand.Rand) {
	t.Helper()
	v.options.Columns = 3
	p.exec(t, "DELETE FROM plain; DELETE FROM part0; DELETE FROM part1")
	plainError := p.copy("plain", v, data)
	parts := divide(v.options, data, random)
	var partError *pgconn.PgError
	where := ""
	for i, part := range parts {
		if err := p.copy(fmt.Sprintf("part%d", i), v, part.stream); err != nil && (partError == nil || part.malformed) {
			partError, where = err, part.where(err.Where)
		}
	}
	switch {
	case plainError == nil && partError == nil:
		all := append(p.rows(t, "part0"), p.rows(t, "part1")...)
		plain := p.rows(t, "plain")
		if fields := append(slices.Clone(parts[0].rows), parts[1].rows...); !slices.Equal(all, fields) {
			t.Fatalf("%q: rows\n%q\nfields\n%q", data, all, fields)
		}
		slices.Sort(all)
		slices.Sort(plain)
		if !slices.Equal(all, plain) {
			t.Fatalf("%q: plain\n%q\nsplit\n%q", data, plain, all)
		}
	case plainError == nil || partError == nil:
		t.Fatalf("%q: plain %v, split %v", data, plainError, partError)
	default:
		got := strings.Replace(where, partError.TableName, "", 1)
		want := strings.Replace(plainError.Where, "plain", "part", 1)
		if plainError.Code != partError.Code || plainError.Message != partError.Message || got != want {
			// Two errors in one stream: which is found first may differ between the parts only.
			if len(parts[0].stream) > 0 && len(parts[1].stream) > 0 && p.anyOf(t, plainError, parts, v) {
				return
			}
			t.Fatalf("%q:\nplain %v %s\nsplit %v %s", data, plainError, want, partError, got)
		}
	}
}

// anyOf reports whether one of the parts says the plain server's error.
func (p *pair) anyOf(t *testing.T, want *pgconn.PgError, parts []part, v variant) bool {
	for i, part := range parts {
		p.exec(t, "DELETE FROM part0; DELETE FROM part1")
		if err := p.copy(fmt.Sprintf("part%d", i), v, part.stream); err != nil && err.Code == want.Code && err.Message == want.Message &&
			part.where(err.Where) == strings.Replace(want.Where, "plain", "part", 1) {
			return true
		}
	}
	return false
}

// part is what goes into one of two tables.
type part struct {
	stream    []byte
	malformed bool
	lines     map[int64]int64 // its lines to those of the whole
	at        int64
	rows      []string // its fields as the splitter sees them
}

var lineNumber = regexp.MustCompile(`^COPY part[01], line (\d+)`)

func (p *part) where(text string) string {
	return lineNumber.ReplaceAllStringFunc(text, func(found string) string {
		n, _ := strconv.ParseInt(lineNumber.FindStringSubmatch(found)[1], 10, 64)
		return fmt.Sprintf("COPY part, line %d", p.lines[n])
	})
}

func (p *part) add(row *Row, s *Splitter) {
	p.stream = append(p.stream, row.Raw...)
	lines := int64(1)
	if s.o.Format != Binary {
		lines = row.Lines(s.Style(), p.at == 0)
	}
	for i := range lines {
		p.lines[p.at+lines-i] = row.Line - i
	}
	p.at += lines
}

func divide(o Options, data []byte, random *rand.Rand) []part {
	parts := []part{{lines: map[int64]int64{}}, {lines: map[int64]int64{}}}
	s, fields := New(o), NewFields(o, []int{0, 1, 2})
	last := 0
	drain := func() {
		for {
			row, ok, err := s.Next()
			if err != nil {
				panic(err)
			}
			if !ok {
				return
			}
			switch row.Kind {
			case Header:
				for i := range parts {
					if o.Format == Binary {
						parts[i].stream = append(parts[i].stream, row.Raw...)
					} else {
						parts[i].add(&row, s)
					}
				}
				continue
			case Malformed:
				parts[last].malformed = true
			case Data:
				last = random.IntN(2)
				parts[last].rows = append(parts[last].rows, describe(fields.Of(&row)))
			}
			parts[last].add(&row, s)
		}
	}
	for len(data) > 0 {
		n := 1 + random.IntN(min(len(data), 20))
		s.Write(data[:n])
		data = data[n:]
		drain()
	}
	s.End()
	drain()
	return parts
}

func describe(fields []Field) string {
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = "NULL"
		if f.Kind == Value {
			text := "'" + strings.ReplaceAll(string(f.Value), "'", "''") + "'"
			if strings.Contains(text, `\`) {
				text = "E" + strings.ReplaceAll(text, `\`, `\\`)
			}
			texts[i] = text
		}
	}
	return strings.Join(texts, " ")
}
