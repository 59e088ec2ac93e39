package oracle

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Mode is a way of sending a statement.
type Mode uint8

// The modes. A statement with arguments has them written as literals in Simple.
const (
	Simple Mode = iota
	PreparedText
	PreparedBinary
)

// Modes are all of them.
var Modes = []Mode{Simple, PreparedText, PreparedBinary}

func (m Mode) String() string {
	return [...]string{"simple", "prepared text", "prepared binary"}[m]
}

// Arg is one argument of a statement.
type Arg struct {
	// Null makes the value NULL.
	Null bool
	// Text is the value in text format.
	Text string
	// Type is the OID the client declares; 0 leaves it to the server.
	Type uint32
}

// Statement is what one side is asked.
type Statement struct {
	SQL  string
	Args []Arg
	// Ordered means that the statement fixes the order of its rows.
	Ordered bool
}

// Outcome is all that a client sees of one statement.
type Outcome struct {
	// Columns has "name type typmod" for each column, the type by name.
	Columns []string
	// Rows have their values printable: text as it is, binary normalised, NULL as \N.
	Rows [][]string
	Tags []string
	// Err is the server's error, if it reported one.
	Err *pgconn.PgError
}

// ask runs the statement on one connection. The error is of the connection or of the
// oracle itself, not the statement's.
func ask(ctx context.Context, s *side, st Statement, mode Mode) (Outcome, error) {
	var outcome Outcome
	var results []*pgconn.Result
	var err error
	if mode == Simple {
		results, err = s.conn.PgConn().Exec(ctx, inline(st)).ReadAll()
	} else {
		var result *pgconn.Result
		if result, err = askPrepared(ctx, s, st, mode); result != nil {
			results = []*pgconn.Result{result}
		}
	}
	var reported *pgconn.PgError
	if errors.As(err, &reported) {
		outcome.Err = reported
	} else if err != nil {
		return outcome, fmt.Errorf("ask %s: %w", s.name, err)
	}
	for _, result := range results {
		if err := outcome.add(ctx, s, result, mode == PreparedBinary); err != nil {
			return outcome, err
		}
	}
	return outcome, nil
}

// add appends one result. Results that ended in an error are left out: how many rows
// a client gets before an error is not fixed by anything.
func (o *Outcome) add(ctx context.Context, s *side, result *pgconn.Result, binary bool) error {
	if result.Err != nil {
		return nil
	}
	o.Tags = append(o.Tags, result.CommandTag.String())
	for _, field := range result.FieldDescriptions {
		t, err := s.typeOf(ctx, field.DataTypeOID)
		if err != nil {
			return err
		}
		o.Columns = append(o.Columns, fmt.Sprintf("%s %s %d", field.Name, t.name, field.TypeModifier))
	}
	for _, values := range result.Rows {
		row := make([]string, len(values))
		for i, value := range values {
			printable, err := s.printable(ctx, result.FieldDescriptions[i].DataTypeOID, value, binary)
			if err != nil {
				return err
			}
			row[i] = printable
		}
		o.Rows = append(o.Rows, row)
	}
	return nil
}

func askPrepared(ctx context.Context, s *side, st Statement, mode Mode) (*pgconn.Result, error) {
	types := make([]uint32, len(st.Args))
	for i, arg := range st.Args {
		types[i] = arg.Type
	}
	s.statements++
	name := "oracle" + strconv.Itoa(s.statements)
	description, err := s.conn.PgConn().Prepare(ctx, name, st.SQL, types)
	if err != nil {
		return nil, err
	}
	values, formats, err := encodeArgs(st.Args, description.ParamOIDs, mode)
	if err != nil {
		return nil, err
	}
	var resultFormats []int16
	if mode == PreparedBinary {
		resultFormats = []int16{pgtype.BinaryFormatCode}
	}
	result := s.conn.PgConn().ExecPrepared(ctx, name, values, formats, resultFormats).Read()
	err = result.Err
	if closeErr := s.conn.PgConn().Deallocate(ctx, name); err == nil {
		err = closeErr
	}
	return result, err
}

// encodeArgs gives text, or binary for the types that have a codec here; others stay
// text, as a driver would send them.
func encodeArgs(args []Arg, types []uint32, mode Mode) (values [][]byte, formats []int16, err error) {
	codecs := pgtype.NewMap()
	for i, arg := range args {
		if arg.Null {
			values, formats = append(values, nil), append(formats, pgtype.TextFormatCode)
			continue
		}
		value, format := []byte(arg.Text), int16(pgtype.TextFormatCode)
		if mode == PreparedBinary && i < len(types) {
			if t, known := codecs.TypeForOID(types[i]); known {
				decoded, decodeErr := t.Codec.DecodeValue(codecs, types[i], pgtype.TextFormatCode, value)
				if decodeErr == nil {
					if value, err = codecs.Encode(types[i], pgtype.BinaryFormatCode, decoded, nil); err != nil {
						return nil, nil, fmt.Errorf("encode argument %d: %w", i+1, err)
					}
					format = pgtype.BinaryFormatCode
				}
			}
		}
		values, formats = append(values, value), append(formats, format)
	}
	return values, formats, nil
}

// inline writes the arguments into the text, the last first so that $1 does not eat $10.
func inline(st Statement) string {
	sql := st.SQL
	for i := len(st.Args); i > 0; i-- {
		sql = strings.ReplaceAll(sql, "$"+strconv.Itoa(i), literal(st.Args[i-1]))
	}
	return sql
}

// literal writes numbers bare and everything else quoted, as people do.
func literal(arg Arg) string {
	if arg.Null {
		return "NULL"
	}
	switch arg.Type {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID:
		if strings.HasPrefix(arg.Text, "-") {
			return "(" + arg.Text + ")"
		}
		return arg.Text
	}
	return "'" + strings.ReplaceAll(arg.Text, "'", "''") + "'"
}
