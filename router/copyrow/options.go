package copyrow

import "strconv"

// Format is a format of COPY.
type Format uint8

// The formats of COPY.
const (
	Text Format = iota
	CSV
	Binary
)

// String is the format's name in COPY's options.
func (f Format) String() string {
	switch f {
	case CSV:
		return "csv"
	case Binary:
		return "binary"
	}
	return "text"
}

// Options say how data is written. They are taken as checked: COPY itself refuses what makes no sense.
type Options struct {
	Format Format
	// Delimiter separates fields. Defaults to a tab, in CSV to a comma.
	Delimiter byte
	// Null stands for NULL. Defaults to \N, in CSV to nothing, unless HasNull.
	Null    string
	HasNull bool
	// Default stands for a column's default if HasDefault.
	Default    string
	HasDefault bool
	// Quote and Escape of CSV. They default to a double quote and to Quote.
	Quote, Escape byte
	// Header: the first line is no row.
	Header bool
	// Columns is the number of fields that a row must have.
	Columns int
	// ForceNotNull and ForceNull hold for the fields that are true, in CSV.
	ForceNotNull, ForceNull []bool
	// NoMarkerInCSV: \. is no end marker in CSV, as from PostgreSQL 18 on.
	NoMarkerInCSV bool
	// RowBound is the largest number of bytes of a row. Defaults to 64 MiB.
	RowBound int
}

// DefaultRowBound is the largest row that is taken unless Options say otherwise.
const DefaultRowBound = 64 << 20

func (o *Options) setDefaults() {
	if o.Delimiter == 0 {
		o.Delimiter = '\t'
		if o.Format == CSV {
			o.Delimiter = ','
		}
	}
	if !o.HasNull && o.Format == Text {
		o.Null = `\N`
	}
	if o.Quote == 0 {
		o.Quote = '"'
	}
	if o.Escape == 0 {
		o.Escape = o.Quote
	}
	if o.RowBound == 0 {
		o.RowBound = DefaultRowBound
	}
}

// TooLongError says that a row is longer than Options.RowBound.
type TooLongError struct {
	Line  int64 // of the row
	Bound int
}

// Error returns the message.
func (e *TooLongError) Error() string {
	return "a row of COPY is longer than " + strconv.Itoa(e.Bound) + " bytes"
}

// SQLState returns 54000, program_limit_exceeded, as Postgres does for a row of more than a gigabyte.
func (e *TooLongError) SQLState() string { return "54000" }
