package exec

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/copyrow"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// codeBadBinary is invalid_binary_representation.
const codeBadBinary = "22P03"

// keyVerdict says what became of a row's key.
type keyVerdict uint8

const (
	keyKnown     keyVerdict = iota
	keyUncertain            // what it means depends on settings: a shard is asked
	keyBad                  // no server takes it
)

// heldRow is a row that waits for what a shard says of its key, or of the key of one before.
type heldRow struct {
	row    copyrow.Row
	values []directory.Value
	bad    bool
	asked  []askedKey
}

// maxLookUps bounds how often the entries of rows are looked up.
const maxLookUps = 10

// askedKey is a text that a shard is asked to read.
type askedKey struct {
	column int // of the key
	text   string
}

// key reads the key of a row into values. keep: the values are to outlive the fields. The error is one to tell; asked is what is
// not certain.
func (c *copyIn) key(fields []copyrow.Field, keep bool) (v keyVerdict, err error) {
	for i := range c.rows.Key {
		value, one, err := c.keyValue(i, fields, keep)
		if err != nil {
			return keyBad, err
		}
		c.values[i] = value
		v = max(v, one)
	}
	return v, nil
}

// keyValue reads one column of the key.
func (c *copyIn) keyValue(i int, fields []copyrow.Field, keep bool) (v directory.Value, verdict keyVerdict, err error) {
	field := copyrow.Field{Kind: copyrow.UseDefault}
	if c.keyAt[i] >= 0 {
		field = fields[c.keyAt[i]]
	}
	switch field.Kind {
	case copyrow.Missing:
		return v, keyBad, nil
	case copyrow.Null:
		return directory.Null(c.types[i]), keyKnown, nil
	case copyrow.UseDefault:
		v, err = c.rows.Value(i)
	case copyrow.Value:
		if c.foreign && c.types[i].Family() == directory.FamilyText && !isASCII(field.Value) {
			return v, keyBad, pgerr.Unsupported("a shard key that is not ASCII is not supported in data that is not in UTF8",
				"Convert the data to UTF8.")
		}
		if v, err = c.decode(i, field.Value, keep); err == nil {
			v, err = c.rows.Stored(i, v)
		}
	}
	switch {
	case err == nil:
		return v, keyKnown, nil
	case errors.Is(err, directory.ErrInvalid), errors.Is(err, directory.ErrOutOfRange):
		return v, keyBad, nil
	case !errors.Is(err, directory.ErrUncertain):
		return v, keyBad, err
	case field.Kind != copyrow.Value || c.r.Copy.Format == "binary" || c.rows.ReadsClock(wire.View(field.Value)):
		return v, keyBad, c.uncertain(i)
	}
	return v, keyUncertain, nil
}

// decode reads the bytes of a field as its column's input or receive function does.
func (c *copyIn) decode(i int, value []byte, keep bool) (directory.Value, error) {
	if c.r.Copy.Format == "binary" {
		return directory.ParseBinary(c.types[i], value)
	}
	text := wire.View(value)
	if keep {
		text = string(value)
	}
	return directory.ParseText(c.types[i], text)
}

func (c *copyIn) uncertain(i int) error {
	return pgerr.Unsupported("the value of column "+strconv.Quote(c.rows.Column(i).Name)+" of the shard key is not certain",
		"Write the value in a form that means the same everywhere (an ISO date, a time zone offset).")
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// hold keeps a row until release.
func (c *copyIn) hold(ctx context.Context, row *copyrow.Row, fields []copyrow.Field) error {
	h := heldRow{row: *row, values: make([]directory.Value, len(c.values))}
	for i := range c.rows.Key {
		value, v, err := c.keyValue(i, fields, true)
		if err != nil {
			return err
		}
		h.values[i] = value
		h.bad = h.bad || v == keyBad
		if v == keyUncertain {
			h.asked = append(h.asked, askedKey{i, string(fields[c.keyAt[i]].Value)})
		}
	}
	c.held = append(c.held, h)
	if len(c.held) >= maxHeldRows {
		return c.release(ctx)
	}
	return nil
}

// release sends the rows that were held, after a shard has read their keys.
func (c *copyIn) release(ctx context.Context) error {
	if len(c.held) == 0 {
		return nil
	}
	held := c.held
	c.held = c.held[:0]
	for i := range c.rows.Key {
		if err := c.ask(ctx, i, held); err != nil {
			return err
		}
	}
	entries, err := c.lookUp(ctx, held)
	if err != nil {
		return err
	}
	for k := range held {
		h := &held[k]
		c.line = h.row.Line
		if h.bad {
			return c.doomRow(ctx, &h.row)
		}
		for round := 0; ; round++ {
			placed, err := c.place(ctx, &h.row, h.values, entries)
			if err != nil {
				return err
			}
			if placed {
				break
			}
			if round == maxLookUps {
				return pgerr.New(pgerr.StaleMap, "the entries of the keys kept changing").WithHint("Try again.")
			}
			if entries, err = c.lookUp(ctx, held[k:]); err != nil { // one that was known is not any more
				return err
			}
		}
	}
	clear(held)
	return nil
}

// lookUp learns the entries of the held rows' keys, up to the first row that no server takes.
func (c *copyIn) lookUp(ctx context.Context, held []heldRow) (*directory.Entries, error) {
	var missing []directory.MissingEntry
	for k := range held {
		if held[k].bad {
			break
		}
		_, entry, err := c.rows.Locate(c.group, c.r.Entries, held[k].values)
		if err != nil {
			break // told when its turn comes
		}
		if entry != nil {
			missing = append(missing, *entry)
		}
	}
	if len(missing) == 0 {
		return c.r.Entries, nil
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	return c.r.Resolve(ctx, missing)
}

// sendFunctions give the binary form of a type's values.
var sendFunctions = map[directory.KeyType]string{
	directory.Int2: "int2send", directory.Int4: "int4send", directory.Int8: "int8send", directory.Text: "textsend",
	directory.Varchar: "varcharsend", directory.UUID: "uuid_send", directory.Date: "date_send",
	directory.Timestamp: "timestamp_send", directory.Timestamptz: "timestamptz_send", directory.Numeric: "numeric_send",
	directory.Bytea: "byteasend", directory.Bool: "boolsend",
}

// ask has a shard read the texts that the held rows have in one column of the key, on a connection of its own with the session's
// settings: those of the COPY are busy. If it refuses one of them the rows behind that do not matter.
func (c *copyIn) ask(ctx context.Context, column int, held []heldRow) error {
	var rows []int
	var texts []string
	for k := range held {
		for _, a := range held[k].asked {
			if a.column == column {
				rows, texts = append(rows, k), append(texts, a.text)
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	answers, err := c.askAll(ctx, column, texts)
	if err == nil {
		return c.answered(column, held, rows, answers)
	}
	if !isServerError(err) || !strings.HasPrefix(pgerr.Of(err).Code, "22") {
		return err
	}
	for n, k := range rows {
		answers, err := c.askAll(ctx, column, texts[n:n+1])
		switch {
		case err == nil:
			err = c.answered(column, held, []int{k}, answers)
		case isServerError(err) && strings.HasPrefix(pgerr.Of(err).Code, "22"):
			held[k].bad = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// askAll returns the binary form of each text, in hexadecimal.
func (c *copyIn) askAll(ctx context.Context, column int, texts []string) ([][]*string, error) {
	t := c.types[column]
	sql := "SELECT pg_catalog.encode(pg_catalog." + sendFunctions[t] + "(v::pg_catalog." + t.String() + "), 'hex') FROM (VALUES "
	for i, text := range texts {
		literal, err := directory.ParseText(directory.Text, text)
		if err != nil {
			return nil, pgerr.New("22021", "invalid byte sequence")
		}
		if i > 0 {
			sql += ", "
		}
		sql += "(" + strconv.Itoa(i) + ", " + literal.Literal() + "::pg_catalog.text)"
	}
	sql += ") AS t (i, v) ORDER BY i"
	own := New(c.x.pools, NewOutput(io.Discard, 0), c.x.identity, nil)
	own.SetView(c.x.view)
	own.SetSettings(c.x.settings)
	defer own.Release()
	l, err := own.Link(ctx, c.r.Shards[0])
	if err != nil {
		return nil, err
	}
	return own.Ask(ctx, l, sql)
}

// answered takes the values that a shard has read.
func (c *copyIn) answered(column int, held []heldRow, rows []int, answers [][]*string) error {
	if len(answers) != len(rows) {
		return pgerr.New(pgerr.InternalError, "a shard read another number of keys than it was asked for")
	}
	for n, k := range rows {
		if len(answers[n]) != 1 || answers[n][0] == nil {
			return pgerr.New(pgerr.InternalError, "a shard gave no value for a key")
		}
		raw, err := hex.DecodeString(*answers[n][0])
		var v directory.Value
		if err == nil {
			v, err = directory.ParseBinary(c.types[column], raw)
		}
		if err == nil {
			v, err = c.rows.Stored(column, v)
		}
		switch {
		case errors.Is(err, directory.ErrOutOfRange):
			held[k].bad = true
		case err != nil:
			c.line = held[k].row.Line
			return c.at(pgerr.Of(c.uncertain(column)), &held[k].row)
		default:
			held[k].values[column] = v
		}
	}
	return nil
}
