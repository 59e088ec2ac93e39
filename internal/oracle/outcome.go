package oracle

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// Type is the name of the type that the client declares; "" leaves it to the server.
	Type string
}

// Statement is what one side is asked.
type Statement struct {
	SQL  string
	Args []Arg
	// Ordered means that the statement fixes the order of its rows.
	Ordered bool
	// AnyMessage means that only the SQLSTATE of an error is fixed: which row fails first is not.
	AnyMessage bool
}

// Outcome is all that a client sees of one statement.
type Outcome struct {
	// Parameters are the names of the parameters' types, as described.
	Parameters []string
	// Columns has "name type typmod" for each column, the type by name.
	Columns []string
	// Origins has the table's column that each comes from (table.number), "-" for none.
	Origins []string
	// Rows have their values printable: text as it is, binary normalised, NULL as \N.
	Rows [][]string
	Tags []string
	// Notices are the messages of notices and warnings.
	Notices []string
	// Status is the transaction status after it: I, T or E.
	Status byte
	// Err is the server's error, if it reported one.
	Err *pgconn.PgError
}

// ask runs the statement on one connection. The error is of the connection or of the
// oracle itself, not the statement's.
func ask(ctx context.Context, s *side, st Statement, mode Mode) (Outcome, error) {
	var outcome Outcome
	var results []*pgconn.Result
	var err error
	s.notices = nil
	if mode == Simple {
		results, err = readAll(s.conn.PgConn().Exec(ctx, inline(st)))
	} else {
		var result *pgconn.Result
		if result, err = askPrepared(ctx, s, st, mode, &outcome); result != nil {
			results = []*pgconn.Result{result}
		}
	}
	outcome.Notices = s.notices
	outcome.Status = s.conn.PgConn().TxStatus()
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

func readAll(several *pgconn.MultiResultReader) (results []*pgconn.Result, err error) {
	for several.NextResult() {
		results = append(results, read(several.ResultReader()))
	}
	return results, several.Close()
}

// read is ResultReader.Read with the columns of a result without rows too.
func read(reader *pgconn.ResultReader) *pgconn.Result {
	columns := slices.Clone(reader.FieldDescriptions())
	for i := range columns {
		columns[i].Name = strings.Clone(columns[i].Name)
	}
	result := reader.Read()
	result.FieldDescriptions = columns
	return result
}

// add appends one result. Results that ended in an error are left out: how many rows
// a client gets before an error is not fixed by anything.
func (o *Outcome) add(ctx context.Context, s *side, result *pgconn.Result, binary bool) error {
	if result.Err != nil {
		return nil
	}
	o.Tags = append(o.Tags, result.CommandTag.String())
	for _, field := range result.FieldDescriptions {
		column, from, err := s.column(ctx, field)
		if err != nil {
			return err
		}
		o.Columns, o.Origins = append(o.Columns, column), append(o.Origins, from)
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

func askPrepared(ctx context.Context, s *side, st Statement, mode Mode, outcome *Outcome) (*pgconn.Result, error) {
	types := make([]uint32, len(st.Args))
	for i, arg := range st.Args {
		var err error
		if types[i], err = s.typeNamed(ctx, arg.Type); err != nil {
			return nil, err
		}
	}
	s.statements++
	name := "oracle" + strconv.Itoa(s.statements)
	description, err := s.conn.PgConn().Prepare(ctx, name, st.SQL, types)
	if err != nil {
		return nil, err
	}
	for _, oid := range description.ParamOIDs {
		t, err := s.typeOf(ctx, oid)
		if err != nil {
			return nil, err
		}
		outcome.Parameters = append(outcome.Parameters, t.name)
	}
	values, formats := encodeArgs(st.Args, description.ParamOIDs, mode)
	var resultFormats []int16
	if mode == PreparedBinary {
		resultFormats = []int16{pgtype.BinaryFormatCode}
	}
	result := read(s.conn.PgConn().ExecPrepared(ctx, name, values, formats, resultFormats))
	err = result.Err
	if closeErr := s.conn.PgConn().Deallocate(ctx, name); err == nil {
		err = closeErr
	}
	return result, err
}

// encodeArgs gives text, or binary for the types that have a codec here; others stay
// text, as a driver would send them.
func encodeArgs(args []Arg, types []uint32, mode Mode) (values [][]byte, formats []int16) {
	codecs := pgtype.NewMap()
	for i, arg := range args {
		if arg.Null {
			values, formats = append(values, nil), append(formats, pgtype.TextFormatCode)
			continue
		}
		value, format := []byte(arg.Text), int16(pgtype.TextFormatCode)
		if mode == PreparedBinary && i < len(types) {
			if t, known := codecs.TypeForOID(types[i]); known {
				// What does not decode (infinity, 'today') is left to the server.
				decoded, decodeErr := t.Codec.DecodeValue(codecs, types[i], pgtype.TextFormatCode, value)
				var encoded []byte
				if decodeErr == nil {
					encoded, decodeErr = codecs.Encode(types[i], pgtype.BinaryFormatCode, decoded, []byte{}) // nil would be NULL
				}
				if decodeErr == nil {
					value = encoded
					format = pgtype.BinaryFormatCode
				}
			}
		}
		values, formats = append(values, value), append(formats, format)
	}
	return values, formats
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
	case "int2", "int4", "int8", "numeric":
		if strings.HasPrefix(arg.Text, "-") {
			return "(" + arg.Text + ")"
		}
		return arg.Text
	}
	return "'" + strings.ReplaceAll(arg.Text, "'", "''") + "'"
}
