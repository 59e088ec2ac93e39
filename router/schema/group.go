package schema

import (
	"context"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// maxPartitions bounds what one statement can make.
const maxPartitions = 100_000

// keyColumns types the columns of a key and checks that the method can partition by them.
func keyColumns(rel *catalog.Relation, columns []shardsql.Column, method directory.Method) (names []string, types []directory.KeyType, typmods []int32, err error) {
	for _, column := range columns {
		col, ok := rel.Column(column.Name)
		if !ok {
			return nil, nil, nil, pgerr.Newf("42703", "column %q of table %q does not exist", column.Name, rel.Name.Name).At(column.Position)
		}
		if err := checkKeyColumn(rel, col, method); err != nil {
			return nil, nil, nil, err.At(column.Position)
		}
		for _, earlier := range names {
			if earlier == column.Name {
				return nil, nil, nil, pgerr.Newf("42701", "column %q appears twice in the key", column.Name).At(column.Position)
			}
		}
		keyType, _ := directory.KeyTypeOf(col.Type)
		names, types, typmods = append(names, col.Name), append(types, keyType), append(typmods, col.Typmod)
	}
	return names, types, typmods, nil
}

func checkKeyColumn(rel *catalog.Relation, col *catalog.Column, method directory.Method) *pgerr.Error {
	keyType, ok := directory.KeyTypeOf(col.Type)
	switch {
	case col.Ordinal < 0:
		return pgerr.Newf("42P16", "cannot shard by system column %q", col.Name)
	case !ok:
		return pgerr.Newf("42804", "column %q of table %q has a type that cannot be a sharding key", col.Name, rel.Name.Name).
			WithHint("Keys are of smallint, integer, bigint, numeric, text, varchar, uuid, date, timestamp, timestamptz, bytea or boolean; not of domains over them.")
	case !keyType.Allows(method):
		return pgerr.Newf("42804", "cannot shard by %s of column %q, which is of type %s", method, col.Name, keyType).
			WithHint("Shard by LIST or HASH.")
	case col.Generated:
		return pgerr.Unsupported(fmt.Sprintf("cannot shard by generated column %q", col.Name),
			"The key must be known before the row is stored: shard by the columns that it is generated from.")
	case !col.CollationDeterministic:
		return pgerr.Unsupported(fmt.Sprintf("cannot shard by column %q, which has a nondeterministic collation", col.Name),
			"Values that are equal but differ in bytes would fall on different shards; give the column a deterministic collation.")
	case method == directory.MethodRange && keyType.Family() == directory.FamilyText && !col.CollationIsC:
		return pgerr.Unsupported(fmt.Sprintf("cannot shard by RANGE of column %q, whose collation is not C", col.Name),
			fmt.Sprintf(`The order of a locale may change under the partitions: ALTER TABLE %s ALTER COLUMN %s TYPE %s COLLATE "C", or shard by HASH or LIST.`,
				rel.Name, directory.QuoteIdentifier(col.Name), keyType))
	}
	return nil
}

// newGroup makes the group of SHARD TABLE without COLOCATE WITH.
func newGroup(ctx context.Context, h *homeShard, m *directory.Map, s *shardsql.ShardTable, t *directory.Table) (directory.Group, error) {
	g := directory.Group{
		ID: groupID(m, t.Name), Method: directory.Method(s.Method), Key: t.KeyTypes,
		SubMethod: directory.Method(s.SubMethod), SubKey: t.SubKeyTypes,
	}
	place := &placement{m: m, active: activeShards(m)}
	if len(place.active) == 0 {
		return g, pgerr.New("55000", "no shard is active").WithHint("Add a shard, or make one active again.")
	}
	var err error
	switch s.Method {
	case shardsql.MethodHash:
		g.Partitions, err = hashPartitions(s, place)
	case shardsql.MethodRange:
		g.Partitions, err = rangePartitions(ctx, h, s, t, place)
	case shardsql.MethodList:
		g.Partitions, err = listPartitions(ctx, h, s, t, place)
	default:
		err = pgerr.Newf(pgerr.FeatureNotSupported, "cannot shard by %s", s.Method)
	}
	return g, err
}

// groupID is the table's name, made unique: a group outlives renamed and dropped tables.
func groupID(m *directory.Map, name directory.TableName) directory.GroupID {
	id := directory.GroupID(name.String())
	for n := 2; ; n++ {
		if _, taken := m.Group(id); !taken {
			return id
		}
		id = directory.GroupID(name.String() + "#" + strconv.Itoa(n))
	}
}

func activeShards(m *directory.Map) []directory.ShardID {
	var active []directory.ShardID
	for _, shard := range m.Shards {
		if shard.State == directory.ShardActive || shard.State == "" {
			active = append(active, shard.ID)
		}
	}
	return active
}

// placement deals out shards: the one that is named, else the active ones in turn.
type placement struct {
	m      *directory.Map
	active []directory.ShardID
	next   int
}

func (p *placement) shard(name string, position int) (directory.ShardID, error) {
	if name == "" {
		p.next++
		return p.active[(p.next-1)%len(p.active)], nil
	}
	return namedShard(p.m, name, position)
}

func namedShard(m *directory.Map, name string, position int) (directory.ShardID, error) {
	shard, ok := m.Shard(directory.ShardID(name))
	if !ok {
		return "", pgerr.Newf("42704", "shard %q does not exist", name).At(position).WithHint("SHOW SHARDS lists the shards.")
	}
	if shard.State == directory.ShardDraining {
		return "", pgerr.Newf("55000", "shard %q is being drained", name).At(position).WithHint("Choose another shard.")
	}
	return shard.ID, nil
}

// interval cuts the hash space into n intervals of (almost) the same size and returns the i-th.
func interval(i, n int) (from, to uint64) {
	cut := func(i int) uint64 { // floor(i * 2^64 / n)
		quotient, _ := bits.Div64(uint64(i), 0, uint64(n))
		return quotient
	}
	from = cut(i)
	if i == n-1 {
		return from, ^uint64(0)
	}
	return from, cut(i+1) - 1
}

func hashPartitions(s *shardsql.ShardTable, place *placement) ([]directory.Partition, error) {
	n := s.Partitions
	if n == 0 {
		n = len(place.active)
	}
	if n > maxPartitions {
		return nil, pgerr.Newf("54000", "%d partitions are too many", n).WithHint(fmt.Sprintf("At most %d.", maxPartitions))
	}
	partitions := make([]directory.Partition, n)
	for i := range partitions {
		shard, err := place.shard("", 0)
		if err != nil {
			return nil, err
		}
		partitions[i] = directory.Partition{Name: "p" + strconv.Itoa(i), Shard: shard}
		partitions[i].HashFrom, partitions[i].HashTo = interval(i, n)
	}
	return partitions, nil
}

// spread gives a partition its subpartitions, or its shard if there are none.
func spread(s *shardsql.ShardTable, def shardsql.PartitionDef, p directory.Partition, place *placement) ([]directory.Partition, error) {
	if s.SubMethod == "" {
		shard, err := place.shard(def.Placement, def.PlacementPosition)
		p.Shard = shard
		return []directory.Partition{p}, err
	}
	n := max(len(def.Subpartitions), s.Subpartitions)
	if n == 0 {
		n = len(place.active)
	}
	if len(def.Subpartitions) > 0 && len(def.Subpartitions) != n {
		return nil, pgerr.Newf("42P16", "partition %q has %d subpartitions, not %d", def.Name, len(def.Subpartitions), n).At(def.Position)
	}
	all := make([]directory.Partition, n)
	for i := range all {
		sub := p
		sub.Parent, sub.Name = def.Name, def.Name+"_s"+strconv.Itoa(i)
		name, position := def.Placement, def.PlacementPosition
		if len(def.Subpartitions) > 0 {
			sub.Name = def.Subpartitions[i].Name
			if def.Subpartitions[i].Placement != "" {
				name, position = def.Subpartitions[i].Placement, def.Subpartitions[i].PlacementPosition
			}
		}
		shard, err := place.shard(name, position)
		if err != nil {
			return nil, err
		}
		sub.Shard = shard
		sub.HashFrom, sub.HashTo = interval(i, n)
		all[i] = sub
	}
	return all, nil
}
