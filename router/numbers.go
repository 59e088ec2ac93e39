package router

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/sequence"
)

// drawnAhead is how many values are drawn ahead for statements that number many rows (COPY, INSERT … SELECT).
const drawnAhead = 10_000

// drawNumbers supplies the values from from up to to of an INSERT that come from sequences, and says how many they are.
func (c *Session) drawNumbers(ctx context.Context, data *planner.InsertData, from, to int, supplied [][]byte) (drawn int, err error) {
	for _, draw := range data.Draws(from, to) {
		values, err := c.draw(ctx, draw.Sequence, draw.Granted, len(draw.Values), 0)
		if err != nil {
			return 0, err
		}
		for i, at := range draw.Values {
			if supplied[at], err = integer(data.Supplied[data.Values[at].Column].Type, values[i]); err != nil {
				return 0, err
			}
		}
		drawn += len(values)
	}
	if drawn > 0 {
		c.values.last = data.LastDrawn()
	}
	return drawn, nil
}

// drawNumber draws the next value of a column that is numbered row by row.
func (c *Session) drawNumber(ctx context.Context, n *planner.Number) (int64, error) {
	values, err := c.draw(ctx, n.Sequence, n.Granted, 1, drawnAhead)
	if err != nil {
		return 0, err
	}
	return values[0], inRange(n.Type, values[0])
}

// draw draws values of a sequence for rows of sharded tables.
func (c *Session) draw(ctx context.Context, name directory.TableName, granted bool, n, ahead int) ([]int64, error) {
	if c.changes.pending {
		return nil, pgerr.Unsupported("a value of sequence "+name.String()+" for a sharded table, in a transaction that has changed definitions, is not supported",
			"Insert the rows in a transaction of their own, or give the numbers.")
	}
	values, err := c.server.numbers.Draw(ctx, sequence.Request{
		Map: c.view.partitions, Catalog: c.view.catalog.Version, Sequence: name, Role: c.vars.env.User, Granted: granted, Ahead: ahead,
	}, n)
	if err == nil && n > 0 {
		c.values.given(name, values[n-1])
	}
	return values, err
}

// inRange fails as the cast to an integer type does for a value that it does not have.
func inRange(oid uint32, n int64) error {
	switch {
	case oid == 20 || oid == 23 && n >= math.MinInt32 && n <= math.MaxInt32 || oid == 21 && n >= math.MinInt16 && n <= math.MaxInt16:
		return nil
	case oid == 21:
		return pgerr.New("22003", "smallint out of range")
	}
	return pgerr.New("22003", "integer out of range")
}

// integer is a number in the binary format of an integer type.
func integer(oid uint32, n int64) ([]byte, error) {
	if err := inRange(oid, n); err != nil {
		return nil, err
	}
	switch oid {
	case 21:
		return binary.BigEndian.AppendUint16(nil, uint16(n)), nil
	case 23:
		return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
	}
	return binary.BigEndian.AppendUint64(nil, uint64(n)), nil
}
