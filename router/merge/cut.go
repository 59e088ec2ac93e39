package merge

import "encoding/binary"

// Cutter applies OFFSET and LIMIT to a stream of rows.
type Cutter struct {
	skip, left int64
	limited    bool
}

// NewCutter returns a cutter that skips offset rows, then lets limit rows pass; a limit below 0 lets all pass.
func NewCutter(offset, limit int64) Cutter {
	return Cutter{skip: max(offset, 0), left: max(limit, 0), limited: limit >= 0}
}

// Take counts one row and reports whether it passes.
func (c *Cutter) Take() bool {
	if c.skip > 0 {
		c.skip--
		return false
	}
	if !c.limited {
		return true
	}
	if c.left == 0 {
		return false
	}
	c.left--
	return true
}

// Done reports that no later row can pass: the sources need not be read on.
func (c *Cutter) Done() bool { return c.limited && c.left == 0 }

// Strip removes the last hidden columns of a row. It works in place: row is changed and the result is the front of it.
func Strip(row []byte, hidden int) ([]byte, error) {
	if hidden == 0 {
		return row, nil
	}
	if len(row) < 2 || hidden < 0 || int(binary.BigEndian.Uint16(row)) < hidden {
		return nil, errMalformedRow
	}
	columns := int(binary.BigEndian.Uint16(row)) - hidden
	end := 2
	for range columns {
		if len(row)-end < 4 {
			return nil, errMalformedRow
		}
		size := int(int32(binary.BigEndian.Uint32(row[end:])))
		end += 4 + max(size, 0)
		if size < -1 || end > len(row) {
			return nil, errMalformedRow
		}
	}
	binary.BigEndian.PutUint16(row, uint16(columns))
	return row[:end], nil
}
