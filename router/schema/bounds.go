package schema

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

func rangePartitions(ctx context.Context, h *homeShard, s *shardsql.ShardTable, t *directory.Table, place *placement) ([]directory.Partition, error) {
	if len(s.Defs) == 0 {
		return nil, pgerr.New("42P16", "SHARD TABLE … BY RANGE needs partitions").
			WithHint("For example: (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (MAXVALUE)).")
	}
	from := make([]directory.Bound, len(t.Key)) // the zero bound is MINVALUE
	var all []directory.Partition
	for _, def := range s.Defs {
		to, err := bounds(ctx, h, def, t)
		if err != nil {
			return nil, err
		}
		if compareBounds(from, to) >= 0 {
			return nil, pgerr.Newf("42P17", "the upper bound of partition %q is not above that of the partition before it", def.Name).
				At(def.Position).WithHint("List the partitions in the order of their bounds.")
		}
		parts, err := spread(s, def, directory.Partition{Name: def.Name, From: from, To: to}, place)
		if err != nil {
			return nil, err
		}
		all, from = append(all, parts...), to
	}
	return all, nil
}

// bounds types VALUES LESS THAN (…); behind a MAXVALUE every column is MAXVALUE.
func bounds(ctx context.Context, h *homeShard, def shardsql.PartitionDef, t *directory.Table) ([]directory.Bound, error) {
	if len(def.LessThan) != len(t.Key) {
		return nil, pgerr.Newf("42P16", "partition %q has %d bounds for a key of %d columns", def.Name, len(def.LessThan), len(t.Key)).
			At(def.Position)
	}
	to := make([]directory.Bound, len(t.Key))
	for i, literal := range def.LessThan {
		switch {
		case literal.Kind == shardsql.LiteralMaxValue || i > 0 && to[i-1].Kind == directory.MaxValue:
			if literal.Kind != shardsql.LiteralMaxValue {
				return nil, pgerr.Newf("42P17", "every bound following MAXVALUE must also be MAXVALUE").At(literal.Position)
			}
			to[i] = directory.Bound{Kind: directory.MaxValue}
		case literal.Kind == shardsql.LiteralNull:
			return nil, pgerr.New("42P17", "cannot specify NULL in range bound").At(literal.Position)
		default:
			value, err := typed(ctx, h, literal, t.KeyTypes[i], t.KeyTypmod(i))
			if err != nil {
				return nil, err
			}
			to[i] = directory.Bound{Kind: directory.Finite, Value: value}
		}
	}
	return to, nil
}

func compareBounds(a, b []directory.Bound) int {
	for i := range a {
		if a[i].Kind != b[i].Kind {
			return int(a[i].Kind) - int(b[i].Kind)
		}
		if a[i].Kind == directory.Finite {
			if c := directory.Compare(a[i].Value, b[i].Value); c != 0 {
				return c
			}
		}
	}
	return 0
}

func listPartitions(ctx context.Context, h *homeShard, s *shardsql.ShardTable, t *directory.Table, place *placement) ([]directory.Partition, error) {
	if len(s.Defs) == 0 {
		return nil, pgerr.New("42P16", "SHARD TABLE … BY LIST needs partitions").
			WithHint("For example: (PARTITION a VALUES IN ('x', 'y'), PARTITION other DEFAULT).")
	}
	var all []directory.Partition
	seen := make(map[string]string) // a value's literals: the partition that has it
	for _, def := range s.Defs {
		p := directory.Partition{Name: def.Name, Default: def.Default}
		for _, tuple := range def.In {
			values, position, err := typedTuple(ctx, h, def, tuple, t)
			if err != nil {
				return nil, err
			}
			if other, ok := seen[canonical(values)]; ok {
				return nil, pgerr.Newf("42P17", "partition %q takes a value that partition %q takes too", def.Name, other).At(position)
			}
			seen[canonical(values)] = def.Name
			p.Values = append(p.Values, values)
		}
		parts, err := spread(s, def, p, place)
		if err != nil {
			return nil, err
		}
		all = append(all, parts...)
	}
	return all, nil
}

func typedTuple(ctx context.Context, h *homeShard, def shardsql.PartitionDef, tuple []shardsql.Literal, t *directory.Table) ([]directory.Value, int, error) {
	if len(tuple) != len(t.Key) {
		return nil, 0, pgerr.Newf("42P16", "partition %q lists %d values for a key of %d columns", def.Name, len(tuple), len(t.Key)).At(def.Position)
	}
	values := make([]directory.Value, len(tuple))
	for i, literal := range tuple {
		if literal.Kind == shardsql.LiteralNull {
			values[i] = directory.Null(t.KeyTypes[i])
			continue
		}
		value, err := typed(ctx, h, literal, t.KeyTypes[i], t.KeyTypmod(i))
		if err != nil {
			return nil, 0, err
		}
		values[i] = value
	}
	return values, tuple[0].Position, nil
}

// canonical is equal for equal tuples. Numerics may be equal with different scales, so their trailing
// zeros go.
func canonical(values []directory.Value) string {
	text := ""
	for _, v := range values {
		if !v.IsNull() && v.Type() == directory.Numeric {
			text += trimZeros(v.Text()) + "\x00"
			continue
		}
		text += v.Literal() + "\x00"
	}
	return text
}

func trimZeros(number string) string {
	for i := range number {
		if number[i] != '.' {
			continue
		}
		for number[len(number)-1] == '0' {
			number = number[:len(number)-1]
		}
		if number[len(number)-1] == '.' {
			number = number[:len(number)-1]
		}
		break
	}
	return number
}

// typed reads a literal as a value of a column, as storing it there would. What depends on settings, and
// what is wrong, is asked of the home shard: it knows, or says the real error.
func typed(ctx context.Context, h *homeShard, literal shardsql.Literal, t directory.KeyType, typmod int32) (directory.Value, error) {
	value, err := directory.Value{}, directory.ErrInvalid
	if fits(literal.Kind, t) {
		value, err = directory.ParseText(t, literal.Text)
	}
	if err != nil {
		if value, err = askHome(ctx, h, literal, t); err != nil {
			return value, pgerr.Of(err).At(literal.Position)
		}
	}
	coerced, err := directory.Coerce(value, t, typmod)
	switch {
	case errors.Is(err, directory.ErrOutOfRange):
		return value, pgerr.Newf("22003", "partition bound %s does not fit into the column", literal.Text).At(literal.Position)
	case err != nil:
		return value, pgerr.Newf("22023", "partition bound %s cannot be stored in the column exactly", literal.Text).At(literal.Position).
			WithHint("Write it as the column stores it.")
	}
	return coerced, nil
}

// fits: the input function of the type reads this kind of literal as an assignment would.
func fits(kind shardsql.LiteralKind, t directory.KeyType) bool {
	switch kind {
	case shardsql.LiteralString:
		return true
	case shardsql.LiteralNumber:
		return t.Family() == directory.FamilyInteger || t == directory.Numeric
	case shardsql.LiteralBool:
		return t == directory.Bool
	}
	return false
}

func askHome(ctx context.Context, h *homeShard, literal shardsql.Literal, t directory.KeyType) (directory.Value, error) {
	source := map[shardsql.LiteralKind]string{
		shardsql.LiteralString: "text", shardsql.LiteralNumber: "numeric", shardsql.LiteralBool: "boolean",
	}[literal.Kind]
	if source == "" {
		return directory.Value{}, pgerr.Newf("42804", "%s is no value of type %s", literal.Text, t)
	}
	// The value comes back in binary, so that no setting of the output matters; $1 is sent as text.
	rows, err := h.conn.Query(ctx, "SELECT CAST(CAST($1::text AS "+source+") AS "+t.String()+")",
		pgx.QueryResultFormats{pgx.BinaryFormatCode}, literal.Text)
	if err != nil {
		return directory.Value{}, err
	}
	defer rows.Close()
	if !rows.Next() {
		if rows.Err() != nil {
			return directory.Value{}, rows.Err()
		}
		return directory.Value{}, pgx.ErrNoRows
	}
	return directory.ParseBinary(t, append([]byte(nil), rows.RawValues()[0]...))
}
