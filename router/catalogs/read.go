package catalogs

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// reader gathers the rows of one batch.
type reader struct {
	data      *catalog.Data
	relations map[uint32]*catalog.Relation
	types     map[uint32]*catalog.Type
	reads     map[uint32][]uint32 // views: what they read, direct
}

func newReader() *reader {
	return &reader{
		data:      &catalog.Data{},
		relations: make(map[uint32]*catalog.Relation), types: make(map[uint32]*catalog.Type),
		reads: make(map[uint32][]uint32),
	}
}

// read runs the queries in one batch, or in two if the built-in objects are not known.
func (l *Loader) read(ctx context.Context, conn *pgx.Conn) (*catalog.Data, error) {
	r := newReader()
	key, err := readBuiltinsKey(ctx, conn)
	if err != nil {
		return nil, err
	}
	known := l.known(key)
	if known == nil {
		batch := &pgx.Batch{}
		r.queueBuiltins(batch)
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return nil, fmt.Errorf("read built-in objects: %w", err)
		}
		known = r.takeBuiltins(key)
		l.keep(known)
		r = newReader()
	}
	r.use(known)
	var searchPath, dateStyle string
	before := conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('DateStyle'),
		pg_catalog.current_database()::text, pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_encoding')`)
	if err := before.Scan(&searchPath, &dateStyle, &r.data.Database, &r.data.ServerVersion, &r.data.Encoding); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	batch := &pgx.Batch{}
	// Expressions are printed with qualified names and ISO dates.
	configure(batch, "", "ISO, MDY")
	queue(batch, schemasQuery, r.schema)
	queue(batch, relationsQuery, r.relation)
	queue(batch, indexesQuery, r.index)
	queue(batch, columnsQuery, r.column)
	queue(batch, keysQuery, r.key)
	queue(batch, foreignKeysQuery, r.foreignKey)
	queue(batch, checksQuery, r.check)
	queue(batch, triggersQuery, r.trigger)
	queue(batch, policiesQuery, r.policy)
	queue(batch, rulesQuery, r.rule)
	queue(batch, readsQuery, r.read)
	queue(batch, inheritsQuery, r.inherits)
	queue(batch, publicationsQuery, r.publication)
	queue(batch, functionsQuery+userFunctions, r.function)
	queue(batch, typesQuery+userTypes, r.typ)
	queue(batch, attributesQuery, r.attribute)
	queue(batch, domainChecksQuery+userDomains, r.domainCheck)
	queue(batch, operatorsQuery, r.operator)
	queue(batch, castsQuery, r.cast)
	configure(batch, searchPath, dateStyle)
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return nil, err
	}
	r.finish()
	return r.data, nil
}

// configure sets for the transaction: inside one the caller's value comes back at the end of the batch,
// outside the batch is a transaction of its own.
func configure(batch *pgx.Batch, searchPath, dateStyle string) {
	batch.Queue(`SELECT pg_catalog.set_config('search_path', $1::text, true), pg_catalog.set_config('DateStyle', $2::text, true)`,
		searchPath, dateStyle)
}

func queue(batch *pgx.Batch, sql string, each func(rows pgx.CollectableRow) error) {
	batch.Queue(sql).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			if err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

func (r *reader) schema(row pgx.CollectableRow) error {
	var s catalog.Schema
	if err := row.Scan(&s.Name, &s.Owner, &s.Users); err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	r.data.Schemas = append(r.data.Schemas, s)
	return nil
}

func (r *reader) relation(row pgx.CollectableRow) error {
	rel := &catalog.Relation{}
	var kind, persistence, ownerSchema, ownerName string
	err := row.Scan(&rel.OID, &rel.Name.Schema, &rel.Name.Name, &kind, &persistence, &rel.Owner, &rel.RowSecurity,
		&rel.ForceRLS, &rel.RowType, &rel.Extension, &rel.Placeholder, &rel.Definition, &ownerSchema, &ownerName)
	if err != nil {
		return fmt.Errorf("read relation: %w", err)
	}
	rel.Kind, rel.Persistence = catalog.RelKind(kind[0]), persistence[0]
	rel.OwnedBy = directory.TableName{Schema: ownerSchema, Name: ownerName}
	rel.System = rel.Name.Schema == "shardyard"
	r.add(rel)
	return nil
}

func (r *reader) systemRelation(row pgx.CollectableRow) error {
	rel := &catalog.Relation{System: true, Persistence: 'p'}
	var kind string
	if err := row.Scan(&rel.OID, &rel.Name.Schema, &rel.Name.Name, &kind, &rel.RowType); err != nil {
		return fmt.Errorf("read system relation: %w", err)
	}
	rel.Kind = catalog.RelKind(kind[0])
	r.add(rel)
	return nil
}

func (r *reader) index(row pgx.CollectableRow) error {
	rel := &catalog.Relation{Persistence: 'p'}
	var kind string
	if err := row.Scan(&rel.OID, &rel.Name.Schema, &rel.Name.Name, &kind, &rel.OwnedBy.Schema, &rel.OwnedBy.Name); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	rel.Kind, rel.System = catalog.RelKind(kind[0]), rel.Name.Schema == "shardyard"
	r.add(rel)
	return nil
}

func (r *reader) add(rel *catalog.Relation) {
	r.relations[rel.OID] = rel
	r.data.Relations = append(r.data.Relations, rel)
}

func (r *reader) column(row pgx.CollectableRow) error {
	var (
		relation uint32
		c        catalog.Column
		identity string
		plain    string // format_type of the column without its modifier
	)
	err := row.Scan(&relation, &c.Ordinal, &c.Name, &c.Type, &c.Typmod, &c.NotNull, &c.Dropped, &c.Generated, &identity,
		&c.HasDefault, &c.Default, &c.Collation, &c.CollationDeterministic, &c.CollationIsC, &plain, &c.Declaration,
		&c.Sequence.Schema, &c.Sequence.Name)
	if err != nil {
		return fmt.Errorf("read column: %w", err)
	}
	if identity != "" {
		c.Identity = identity[0]
	}
	if c.HasDefault && !c.Generated {
		c.DefaultValue, c.DefaultIsNull, c.DefaultIsConst = constant(c.Default, plain)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Columns = append(rel.Columns, c)
	}
	return nil
}

func (r *reader) key(row pgx.CollectableRow) error {
	var (
		relation uint32
		k        catalog.Key
	)
	err := row.Scan(&relation, &k.Name, &k.Columns, &k.Primary, &k.Exclusion, &k.Constraint, &k.Deferrable, &k.Partial,
		&k.Valid, &k.Operators, &k.DefaultOperators)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Keys = append(rel.Keys, k)
	}
	return nil
}

func (r *reader) foreignKey(row pgx.CollectableRow) error {
	var (
		relation                uint32
		fk                      catalog.ForeignKey
		update, onDelete, match string
	)
	err := row.Scan(&relation, &fk.Name, &fk.Columns, &fk.References.Schema, &fk.References.Name, &fk.ReferencedColumns,
		&update, &onDelete, &match, &fk.Deferrable)
	if err != nil {
		return fmt.Errorf("read foreign key: %w", err)
	}
	fk.OnUpdate, fk.OnDelete, fk.Match = update[0], onDelete[0], match[0]
	if rel := r.relations[relation]; rel != nil {
		rel.ForeignKeys = append(rel.ForeignKeys, fk)
	}
	return nil
}

func (r *reader) check(row pgx.CollectableRow) error {
	var (
		relation uint32
		c        catalog.Check
	)
	if err := row.Scan(&relation, &c.Name, &c.Expression); err != nil {
		return fmt.Errorf("read check constraint: %w", err)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Checks = append(rel.Checks, c)
	}
	return nil
}

func (r *reader) trigger(row pgx.CollectableRow) error {
	var (
		relation uint32
		t        catalog.Trigger
		enabled  string
	)
	err := row.Scan(&relation, &t.Name, &t.Function, &t.Row, &t.Before, &t.InsteadOf, &t.Events, &enabled, &t.Constraint, &t.Definition)
	if err != nil {
		return fmt.Errorf("read trigger: %w", err)
	}
	t.Enabled = enabled[0]
	if rel := r.relations[relation]; rel != nil {
		rel.Triggers = append(rel.Triggers, t)
	}
	return nil
}

func (r *reader) policy(row pgx.CollectableRow) error {
	var (
		relation uint32
		p        catalog.Policy
	)
	if err := row.Scan(&relation, &p.Name, &p.Permissive, &p.Using, &p.WithCheck); err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Policies = append(rel.Policies, p)
	}
	return nil
}

func (r *reader) rule(row pgx.CollectableRow) error {
	var (
		relation uint32
		name     string
	)
	if err := row.Scan(&relation, &name); err != nil {
		return fmt.Errorf("read rule: %w", err)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Rules = append(rel.Rules, name)
	}
	return nil
}

func (r *reader) read(row pgx.CollectableRow) error {
	var reader, relation uint32
	if err := row.Scan(&reader, &relation); err != nil {
		return fmt.Errorf("read view dependency: %w", err)
	}
	r.reads[reader] = append(r.reads[reader], relation)
	return nil
}

func (r *reader) inherits(row pgx.CollectableRow) error {
	var child, parent uint32
	if err := row.Scan(&child, &parent); err != nil {
		return fmt.Errorf("read inheritance: %w", err)
	}
	c, p := r.relations[child], r.relations[parent]
	if c != nil && p != nil {
		c.Parents, p.Children = append(c.Parents, p.Name), append(p.Children, c.Name)
	}
	return nil
}

func (r *reader) publication(row pgx.CollectableRow) error {
	var (
		relation uint32
		name     string
	)
	if err := row.Scan(&relation, &name); err != nil {
		return fmt.Errorf("read publication: %w", err)
	}
	if rel := r.relations[relation]; rel != nil {
		rel.Publications = append(rel.Publications, name)
	}
	return nil
}
