package router

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/sequence"
)

// drawNumbers supplies the values from from up to to of an INSERT that come from sequences, and says how many they are.
func (c *Session) drawNumbers(ctx context.Context, data *planner.InsertData, from, to int, supplied [][]byte) (drawn int, err error) {
	for _, draw := range data.Draws(from, to) {
		if c.changes.pending {
			return 0, pgerr.Unsupported("a value of sequence "+draw.Sequence.String()+" for a sharded table, in a transaction that has changed definitions, is not supported",
				"Insert the rows in a transaction of their own, or give the numbers.")
		}
		values, err := c.server.numbers.Draw(ctx, sequence.Request{
			Map: c.view.partitions, Catalog: c.view.catalog.Version, Sequence: draw.Sequence, Role: c.vars.env.User, Granted: draw.Granted,
		}, len(draw.Values))
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
	return drawn, nil
}

// integer is a number in the binary format of an integer type.
func integer(oid uint32, n int64) ([]byte, error) {
	switch {
	case oid == 20:
		return binary.BigEndian.AppendUint64(nil, uint64(n)), nil
	case oid == 23 && n >= math.MinInt32 && n <= math.MaxInt32:
		return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
	case oid == 21 && n >= math.MinInt16 && n <= math.MaxInt16:
		return binary.BigEndian.AppendUint16(nil, uint16(n)), nil
	case oid == 21:
		return nil, pgerr.New("22003", "smallint out of range")
	}
	return nil, pgerr.New("22003", "integer out of range")
}
