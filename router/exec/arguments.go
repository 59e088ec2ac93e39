package exec

import (
	"context"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Arguments has a shard evaluate the arguments of an EXECUTE as Postgres does: prepared is a statement that returns its
// parameters in one row, and execute gives the EXECUTE of it under the name that it has on the link. The values are
// text; nil is NULL. It ends no transaction.
func (x *Executor) Arguments(ctx context.Context, l *Link, prepared *Statement, execute func(name string) *Statement, meaning string) ([]*string, error) {
	name, err := x.Parse(ctx, l, prepared, false, meaning)
	if err != nil {
		return nil, err
	}
	st := execute(name)
	if name, err = x.Parse(ctx, l, st, false, meaning); err != nil {
		return nil, err
	}
	var rows [][]*string
	l.pipelined = true
	l.out = wire.AppendBind(l.out, "", name, nil, nil, nil)
	l.steps = append(l.steps, step{kind: stepBind, silent: true, noPosition: st.NoPosition, part: st.Part})
	l.out = wire.AppendExecute(l.out, "", 0)
	l.steps = append(l.steps, step{kind: stepExecute, silent: true, noPosition: st.NoPosition, part: st.Part, collect: &rows})
	x.Used(l, false)
	if err := x.Drain(ctx, l); err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, pgerr.Newf(pgerr.InternalError, "the arguments of an EXECUTE are %d rows", len(rows))
	}
	return rows[0], nil
}
