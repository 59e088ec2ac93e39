package exec

import (
	"context"

	"github.com/shardyard/shardyard/router/wire"
)

// Compute runs statements on a link, each of one column, and returns their values in binary format (nil: NULL). All of
// them go out at once; accepted, unless nil, is a statement in front of them that the shard must accept.
func (x *Executor) Compute(ctx context.Context, l *Link, accepted *Statement, pieces []Piece, meaning string) ([][][]byte, error) {
	rows := make([][][]*string, len(pieces))
	before := len(l.steps)
	shift := 0
	if len(pieces) > 0 {
		shift = pieces[0].Shift
	}
	if accepted != nil {
		if _, err := x.Parse(ctx, l, accepted, false, meaning); err != nil {
			return nil, err
		}
	}
	for i := range pieces {
		piece := &pieces[i]
		bind, err := x.bindFor(l, piece)
		if err != nil {
			return nil, err
		}
		name, err := x.Parse(ctx, l, piece.Statement, false, meaning)
		if err != nil {
			return nil, err
		}
		s := step{silent: true, noPosition: piece.Statement.NoPosition, part: piece.Statement.Part}
		l.pipelined = true
		l.out = wire.AppendBind(l.out, "", name, bind.Formats, bind.Params, []int16{1})
		s.kind = stepBind
		l.steps = append(l.steps, s)
		l.out = wire.AppendExecute(l.out, "", 0)
		s.kind, s.collect = stepExecute, &rows[i]
		l.steps = append(l.steps, s)
	}
	for i := before; i < len(l.steps); i++ {
		l.steps[i].shift = shift
	}
	x.Used(l, true)
	if err := x.Drain(ctx, l); err != nil {
		return nil, err
	}
	values := make([][][]byte, len(pieces))
	for i := range rows {
		for _, row := range rows[i] {
			var value []byte
			if len(row) == 1 && row[0] != nil {
				value = []byte(*row[0])
			}
			values[i] = append(values[i], value)
		}
	}
	return values, nil
}
