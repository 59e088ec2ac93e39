package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
)

// subject is a table together with the way it is, or is to be, distributed.
type subject struct {
	catalog *catalog.Snapshot   // of the home shard: knows all tables and all functions
	there   *catalog.Snapshot   // where rel is from; nil: the home shard's
	rel     *catalog.Relation   // the table as it is, or would be
	was     directory.TableName // its name in m, where it is being renamed
	m       *directory.Map
	table   *directory.Table    // as it is to be in the map
	verb    string              // "shard", "pin" or "change": what cannot be done
	local   bool                // UNIQUE LOCAL: keys without the sharding key are allowed
	holders []directory.ShardID // that will have the table
}

// together tells whether the rows of another table that a row of the subject can be related to are always
// on the same shard.
func (s *subject) together(name directory.TableName) bool {
	if name == s.rel.Name || name == s.was {
		return true
	}
	other, ok := s.m.Table(name)
	if ok && other.Kind == directory.TableReference {
		return true
	}
	if !ok || other.Kind != s.table.Kind {
		return false
	}
	if s.table.Kind == directory.TablePinned {
		return other.Shard == s.table.Shard
	}
	return other.Group == s.table.Group
}

func (s *subject) refuse(reason, hint string) error {
	return pgerr.Unsupported(fmt.Sprintf("cannot %s table %q: %s", s.verb, s.rel.Name.Name, reason), hint)
}

// check holds the table against every rule that distributed tables obey. The first breach is returned: the
// object that is in the way and the way out.
func (s *subject) check() error {
	for _, rule := range []func() error{
		s.checkKind, s.checkDependents, s.checkColumns, s.checkKeys, s.checkForeignKeys, s.checkReferences,
		s.checkTriggers, s.checkExpressions,
	} {
		if err := rule(); err != nil {
			return err
		}
	}
	return nil
}

func (s *subject) checkKind() error {
	r := s.rel
	switch {
	case r.System:
		return pgerr.Newf("42501", "permission denied: %q is a system catalog", r.Name.Name)
	case r.Kind == catalog.KindPartitionedTable:
		return s.refuse("it is partitioned by Postgres", "Shard a plain table; RANGE and LIST sharding take the place of its partitions.")
	case r.Kind != catalog.KindTable:
		return pgerr.Newf("42809", "%q is not a table", r.Name.Name).WithDetail(fmt.Sprintf("It is a %s.", r.Kind.Noun())).
			WithHint("Only plain tables can be sharded or pinned.")
	case r.Extension != "":
		return s.refuse(fmt.Sprintf("it belongs to extension %q", r.Extension), "Leave it on the home shard.")
	case len(r.Parents) > 0:
		return s.refuse(fmt.Sprintf("it inherits from table %q", r.Parents[0].Name), "Detach it (ALTER TABLE … NO INHERIT, or DETACH PARTITION) first.")
	case len(r.Children) > 0:
		return s.refuse(fmt.Sprintf("table %q inherits from it", r.Children[0].Name), "Detach its children (ALTER TABLE … NO INHERIT) first.")
	case len(r.Publications) > 0:
		return s.refuse(fmt.Sprintf("it is in publication %q", r.Publications[0]),
			fmt.Sprintf("Subscribers would miss the rows of other shards: ALTER PUBLICATION %s DROP TABLE %s.",
				directory.QuoteIdentifier(r.Publications[0]), r.Name))
	case len(r.Rules) > 0:
		return s.refuse(fmt.Sprintf("it has rule %q", r.Rules[0]),
			fmt.Sprintf("DROP RULE %s ON %s; a trigger AFTER … FOR EACH ROW may do the same.", directory.QuoteIdentifier(r.Rules[0]), r.Name))
	}
	return nil
}

// checkDependents refuses views, materialized views and rules of others that read the table: on the home
// shard they would see what is there only.
func (s *subject) checkDependents() error {
	if s.table.Kind == directory.TableReference {
		return nil // the home shard has all rows
	}
	for _, other := range s.catalog.UserRelations() {
		if other.Name != s.rel.Name && slices.Contains(other.DependsOn, s.rel.Name) {
			return s.refuse(fmt.Sprintf("%s %q reads it", other.Kind.Noun(), other.Name.String()),
				fmt.Sprintf("Drop %s, shard the table, and query the table itself.", other.Name))
		}
	}
	return nil
}

func (s *subject) checkColumns() error {
	if s.table.Kind == directory.TableReference {
		return nil // values come from the home shard
	}
	numbered := s.numbersRows()
	for _, col := range s.rel.Live() {
		if numbered && col.Sequence.Name != "" {
			continue
		}
		if col.Identity != 0 {
			return s.refuse(fmt.Sprintf("column %q is an identity column", col.Name), s.sequenceHint(col.Name, "DROP IDENTITY"))
		}
		if col.HasDefault && usesSequence(col.Default) {
			return s.refuse(fmt.Sprintf("the default of column %q uses a sequence", col.Name), s.sequenceHint(col.Name, "DROP DEFAULT"))
		}
	}
	if numbered {
		return nil
	}
	for _, other := range s.catalog.UserRelations() {
		if other.Kind == catalog.KindSequence && other.OwnedBy == s.rel.Name {
			return s.refuse(fmt.Sprintf("sequence %q is owned by it", other.Name.String()),
				fmt.Sprintf("ALTER SEQUENCE %s OWNED BY NONE.", other.Name))
		}
	}
	return nil
}

// numbersRows reports whether the router gives the rows their numbers: the sequence stays on the home shard, where the
// table is too.
func (s *subject) numbersRows() bool {
	return s.table.Kind == directory.TableSharded && (s.verb != "shard" || slices.Contains(s.holders, s.m.Home))
}

func (s *subject) sequenceHint(column, action string) string {
	if s.table.Kind == directory.TableSharded && !s.numbersRows() {
		return "Give the home shard a partition of the table: sequences are there."
	}
	return fmt.Sprintf("Only DEFAULT nextval('…') itself and identity, of sharded tables that the home shard has a part of, are supported: ALTER TABLE %s ALTER COLUMN %s %s.",
		s.rel.Name, directory.QuoteIdentifier(column), action)
}

// usesSequence looks for the sequence functions in an expression as pg_get_expr prints it.
func usesSequence(expression string) bool {
	for _, name := range []string{"nextval(", "currval(", "setval(", "lastval("} {
		if strings.Contains(expression, name) {
			return true
		}
	}
	return false
}

// checkKeys refuses what only a look at all shards could enforce. It notes in the table what UNIQUE LOCAL
// lets pass.
func (s *subject) checkKeys() error {
	if s.table.Kind == directory.TableReference {
		return s.checkMirrorKey()
	}
	if s.table.Kind != directory.TableSharded {
		return nil
	}
	shardKey := append(slices.Clone(s.table.Key), s.table.SubKey...)
	for _, key := range s.rel.Keys {
		missing := slices.IndexFunc(shardKey, func(column string) bool { return !slices.Contains(key.Columns, column) })
		if missing < 0 && key.DefaultOperators {
			continue
		}
		if s.local || slices.Contains(s.table.UniqueLocal, key.Name) {
			if !slices.Contains(s.table.UniqueLocal, key.Name) {
				s.table.UniqueLocal = append(s.table.UniqueLocal, key.Name)
			}
			continue
		}
		var reason string
		if missing >= 0 {
			reason = fmt.Sprintf("%s %q does not contain the sharding key column %q", keyNoun(key), key.Name, shardKey[missing])
		} else {
			reason = fmt.Sprintf("%s %q does not compare the sharding key by plain equality", keyNoun(key), key.Name)
		}
		return s.refuse(reason, "Rows of different shards could break it: add the sharding key to it, drop it, "+
			"or accept that it holds within each shard only (SHARD TABLE … UNIQUE LOCAL).")
	}
	return nil
}

func keyNoun(key catalog.Key) string {
	switch {
	case key.Primary:
		return "primary key"
	case key.Exclusion:
		return "exclusion constraint"
	case key.Constraint:
		return "unique constraint"
	}
	return "unique index"
}

// checkForeignKeys refuses foreign keys of the table whose target may be on another shard.
func (s *subject) checkForeignKeys() error {
	for _, fk := range s.rel.ForeignKeys {
		if err := s.checkForeignKey(fk, s.table, fk.References); err != nil {
			return err
		}
	}
	return nil
}

func (s *subject) checkForeignKey(fk catalog.ForeignKey, from *directory.Table, to directory.TableName) error {
	if !s.together(to) {
		if s.table.Kind == directory.TableReference {
			return s.refuse(fmt.Sprintf("foreign key %q references table %q, which is no reference table", fk.Name, to.String()),
				fmt.Sprintf("SHARD TABLE %s AS REFERENCE first, or ALTER TABLE %s DROP CONSTRAINT %s.", to, s.rel.Name, directory.QuoteIdentifier(fk.Name)))
		}
		return s.refuse(fmt.Sprintf("foreign key %q references table %q, which is not on the same shards", fk.Name, to.String()),
			fmt.Sprintf("Shard %s first and this table COLOCATE WITH it, or ALTER TABLE %s DROP CONSTRAINT %s.",
				to, s.rel.Name, directory.QuoteIdentifier(fk.Name)))
	}
	if other, ok := s.m.Table(to); ok && other.Kind == directory.TableReference && s.table.Kind != directory.TableReference {
		return s.checkReferenceKey(fk, to)
	}
	if s.table.Kind != directory.TableSharded {
		return nil
	}
	target := s.table
	if to != s.rel.Name {
		target, _ = s.m.Table(to)
	}
	key, targetKey := append(slices.Clone(from.Key), from.SubKey...), append(slices.Clone(target.Key), target.SubKey...)
	for i, column := range key {
		at := slices.Index(fk.Columns, column)
		if at < 0 || fk.ReferencedColumns[at] != targetKey[i] {
			return s.refuse(fmt.Sprintf("foreign key %q does not match the sharding key column %q with %q of table %q", fk.Name, column, targetKey[i], to.String()),
				"A foreign key between sharded tables must contain the sharding keys of both, column by column.")
		}
	}
	if fk.OnDelete == 'n' || fk.OnDelete == 'd' || fk.OnUpdate == 'n' || fk.OnUpdate == 'd' {
		return s.refuse(fmt.Sprintf("foreign key %q would change the sharding key (SET NULL or SET DEFAULT)", fk.Name),
			"Use NO ACTION, RESTRICT or CASCADE.")
	}
	return nil
}

// checkReferenceKey refuses actions of a foreign key to a reference table: that is changed on the home shard, and
// mirrored writes only look whether a row is still referred to.
func (s *subject) checkReferenceKey(fk catalog.ForeignKey, to directory.TableName) error {
	for _, action := range []byte{fk.OnDelete, fk.OnUpdate} {
		if action != 'a' && action != 'r' {
			return s.refuse(fmt.Sprintf("foreign key %q to reference table %q has an action (CASCADE, SET NULL or SET DEFAULT)", fk.Name, to.String()),
				"Use NO ACTION or RESTRICT.")
		}
	}
	return nil
}

// mayReferTo reports whether another table may have foreign keys to the subject although their rows are not
// together: those of the home shard alone, and of several shards without an action, to a reference table.
func (s *subject) mayReferTo(name directory.TableName) bool {
	if s.table.Kind != directory.TableReference {
		return false
	}
	other, distributed := s.m.Table(name)
	if !distributed {
		return true
	}
	rel, ok := s.catalog.Relation(name)
	if s.there != nil {
		rel, ok = s.there.Relation(name)
	}
	if !ok || other.Kind == directory.TableReference {
		return true
	}
	for _, fk := range rel.ForeignKeys {
		if fk.References == s.rel.Name && s.checkReferenceKey(fk, s.rel.Name) != nil {
			return false
		}
	}
	return true
}

// checkReferences refuses foreign keys of other tables that point here from other shards.
func (s *subject) checkReferences() error {
	for _, name := range s.rel.ReferencedBy {
		if name == s.rel.Name || s.together(name) || s.mayReferTo(name) {
			continue
		}
		local := s.catalog
		if s.there != nil {
			local = s.there
		}
		other, ok := local.Relation(name)
		if !ok {
			continue
		}
		for _, fk := range other.ForeignKeys {
			if fk.References == s.rel.Name {
				return s.refuse(fmt.Sprintf("foreign key %q of table %q references it", fk.Name, name.String()),
					fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s; shard both tables (that one COLOCATE WITH this one), then add it again.",
						name, directory.QuoteIdentifier(fk.Name)))
			}
		}
	}
	return nil
}
