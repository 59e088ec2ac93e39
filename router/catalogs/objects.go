package catalogs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

func (r *reader) function(row pgx.CollectableRow) error {
	f := &catalog.Function{}
	var kind, volatility string
	var path *string
	err := row.Scan(&f.OID, &f.Schema, &f.Name, &kind, &f.Language, &volatility, &f.Strict, &f.ReturnsSet, &f.SecurityDefiner,
		&f.ArgTypes, &f.Variadic, &f.Defaults, &f.ReturnType, &f.Extension, &f.Source, &f.Arguments, &path)
	if err != nil {
		return fmt.Errorf("read function: %w", err)
	}
	f.Kind, f.Volatility = kind[0], catalog.Volatility(volatility[0])
	if path != nil && !strings.Contains(*path, `"`) {
		f.Path = strings.Split(strings.ReplaceAll(*path, " ", ""), ",")
	}
	r.data.Functions = append(r.data.Functions, f)
	return nil
}

func (r *reader) typ(row pgx.CollectableRow) error {
	t := &catalog.Type{}
	var kind, category, delimiter string
	err := row.Scan(&t.OID, &t.Schema, &t.Name, &kind, &category, &t.Elem, &t.Array, &t.Base, &t.BaseTypmod, &t.NotNull,
		&t.Relation, &t.Collation, &delimiter, &t.Labels, &t.Subtype, &t.Extension)
	if err != nil {
		return fmt.Errorf("read type: %w", err)
	}
	t.Kind, t.Category, t.Delimiter = kind[0], category[0], delimiter[0]
	r.types[t.OID] = t
	r.data.Types = append(r.data.Types, t)
	return nil
}

func (r *reader) attribute(row pgx.CollectableRow) error {
	var (
		owner uint32
		a     catalog.Attribute
	)
	if err := row.Scan(&owner, &a.Name, &a.Type, &a.Typmod); err != nil {
		return fmt.Errorf("read attribute: %w", err)
	}
	if t := r.types[owner]; t != nil {
		t.Attributes = append(t.Attributes, a)
	}
	return nil
}

func (r *reader) domainCheck(row pgx.CollectableRow) error {
	var (
		owner uint32
		check string
	)
	if err := row.Scan(&owner, &check); err != nil {
		return fmt.Errorf("read domain constraint: %w", err)
	}
	if t := r.types[owner]; t != nil {
		t.Checks = append(t.Checks, check)
	}
	return nil
}

func (r *reader) operator(row pgx.CollectableRow) error {
	var op catalog.Operator
	if err := row.Scan(&op.Schema, &op.Name, &op.Left, &op.Right, &op.Function); err != nil {
		return fmt.Errorf("read operator: %w", err)
	}
	r.data.Operators = append(r.data.Operators, op)
	return nil
}

func (r *reader) cast(row pgx.CollectableRow) error {
	var (
		c       catalog.Cast
		context string
	)
	if err := row.Scan(&c.Source, &c.Target, &c.Function, &context); err != nil {
		return fmt.Errorf("read cast: %w", err)
	}
	c.Context = context[0]
	r.data.Casts = append(r.data.Casts, c)
	return nil
}

// finish works out what needs all rows: the row types of tables and what views read, transitively.
func (r *reader) finish() {
	for _, rel := range r.data.Relations {
		if t := r.types[rel.RowType]; t != nil && len(t.Attributes) == 0 {
			for i := range rel.Columns {
				if c := &rel.Columns[i]; !c.Dropped {
					t.Attributes = append(t.Attributes, catalog.Attribute{Name: c.Name, Type: c.Type, Typmod: c.Typmod})
				}
			}
		}
	}
	for oid := range r.reads {
		if rel := r.relations[oid]; rel != nil {
			rel.DependsOn = r.readsOf(oid)
		}
	}
}

func (r *reader) readsOf(oid uint32) []directory.TableName {
	seen := map[uint32]bool{oid: true}
	var names []directory.TableName
	work := slices.Clone(r.reads[oid])
	for len(work) > 0 {
		next := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[next] {
			continue
		}
		seen[next] = true
		if rel := r.relations[next]; rel != nil {
			names = append(names, rel.Name)
		}
		work = append(work, r.reads[next]...)
	}
	slices.SortFunc(names, func(a, b directory.TableName) int { return strings.Compare(a.String(), b.String()) })
	return names
}
