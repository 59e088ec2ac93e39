package exec

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/router/copyrow"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// numbered is a row as the shards get it: with the numbers that it leaves out as its first fields.
func (c *copyIn) numbered(ctx context.Context, row *copyrow.Row) (copyrow.Row, error) {
	if len(c.rows.Numbers) == 0 {
		return *row, nil
	}
	if len(c.held) == 0 {
		c.extended = c.extended[:0]
	}
	var numbers [4]int64
	drawn := numbers[:0]
	for i := range c.rows.Numbers {
		n, err := c.draw(ctx, i)
		if err != nil {
			if released := c.release(ctx); released != nil || c.doomed != nil {
				return *row, released
			}
			c.line = row.Line
			return *row, c.at(pgerr.Of(err), row)
		}
		drawn = append(drawn, n)
	}
	var extended copyrow.Row
	extended, c.extended = row.Extend(c.extended, c.format(), len(drawn), func(dst []byte) []byte {
		for i, n := range drawn {
			dst = c.appendNumber(dst, i, n)
		}
		return dst
	})
	return extended, nil
}

// draw draws the number of a column.
func (c *copyIn) draw(ctx context.Context, i int) (int64, error) {
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	return c.r.Draw(ctx, &c.rows.Numbers[i])
}

// appendNumber appends a number as a field.
func (c *copyIn) appendNumber(dst []byte, i int, n int64) []byte {
	o := &c.written
	if o.Format == copyrow.Binary {
		at := len(dst)
		dst = appendInteger(append(dst, 0, 0, 0, 0), c.rows.Numbers[i].Type, n)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		return dst
	}
	text := strconv.FormatInt(n, 10)
	for text == o.Null || o.HasDefault && text == o.Default { // with a further zero in front it is the same number
		sign := ""
		if text[0] == '-' {
			sign, text = "-", text[1:]
		}
		text = sign + "0" + text
	}
	return append(append(dst, text...), c.delimiter())
}

func (c *copyIn) delimiter() byte {
	switch {
	case c.written.Delimiter != 0:
		return c.written.Delimiter
	case c.written.Format == copyrow.CSV:
		return ','
	}
	return '\t'
}

func (c *copyIn) format() copyrow.Format { return c.written.Format }

// malformed is what no server accepts, as a shard is to get it. Where the shard, which expects the numbers, too, would tell
// another error than one Postgres, that is the error.
func (c *copyIn) malformed(row *copyrow.Row) (copyrow.Row, error) {
	numbers := len(c.rows.Numbers)
	if numbers == 0 || c.written.Format != copyrow.Binary || c.prefix == nil || len(row.Raw) < 2 {
		return *row, nil
	}
	count := int16(binary.BigEndian.Uint16(row.Raw))
	expected := len(c.rows.Types) - numbers
	switch {
	case count == -1:
		return *row, nil
	case int(count) != expected:
		c.line = row.Line
		return *row, c.at(pgerr.Newf("22P04", "row field count is %d, expected %d", count, expected), nil)
	}
	extended, _ := row.Extend(nil, copyrow.Binary, numbers, func(dst []byte) []byte {
		for i := range numbers {
			dst = c.appendNumber(dst, i, 0)
		}
		return dst
	})
	return extended, nil
}

// statement is the text that the shards get, and where in it the client's own is.
func (c *copyIn) statement() (sql string, part *Part) {
	if c.rows.SQL == "" {
		return c.r.SQL, nil
	}
	behind := c.rows.InsertedAt + c.rows.InsertedLength
	return c.rows.SQL, &Part{
		Start: 0, Length: c.rows.InsertedAt, Client: c.r.Shift,
		Next: &Part{Start: behind, Length: len(c.rows.SQL), Client: c.r.Shift + c.rows.InsertedAt},
	}
}

// unnumbered is the context of an error without the numbers of the line that it shows.
func (c *copyIn) unnumbered(where string) string {
	if len(c.rows.Numbers) == 0 || c.written.Format == copyrow.Binary {
		return where
	}
	at := shownLine(where, "COPY "+c.r.Copy.Table.Name+", ")
	if at < 0 {
		return where
	}
	end := at
	for range c.rows.Numbers {
		for end < len(where) && (where[end] >= '0' && where[end] <= '9' || where[end] == '-') {
			end++
		}
		if end == len(where) || where[end] != c.delimiter() {
			return where
		}
		end++
	}
	return where[:at] + where[end:]
}

// shownLine is where in the context of an error the line begins that it shows, as in "COPY t, line 5: "…""; -1: it shows none.
func shownLine(where, prefix string) int {
	at := 0
	if !strings.HasPrefix(where, prefix) {
		if at = strings.Index(where, "\n"+prefix) + 1; at == 0 {
			return -1
		}
	}
	at += len(prefix)
	digit := strings.IndexAny(where[at:], "0123456789\n")
	if digit < 0 {
		return -1
	}
	for at += digit; at < len(where) && where[at] >= '0' && where[at] <= '9'; {
		at++
	}
	if rest, ok := strings.CutPrefix(where[at:], `: "`); ok {
		return len(where) - len(rest)
	}
	return -1
}

// told is the CopyInResponse of a shard as the client gets it: of the fields that it is to send.
func (c *copyIn) told(response []byte) []byte {
	var m wire.CopyResponse
	if len(c.rows.Numbers) == 0 || m.Decode(response[copyHeader:]) != nil || len(m.Formats) < len(c.rows.Numbers) {
		return response
	}
	return wire.AppendCopyInResponse(nil, m.Binary, m.Formats[len(c.rows.Numbers):])
}
