package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// MoveData is what the router needs to know of an UPDATE that may change shard keys: the shards change the rows where
// they are, and rows whose key belongs to another shard then are taken there, with the rows that follow them by ON
// UPDATE CASCADE.
type MoveData struct {
	// Hidden is the number of columns behind those that the client asked for: the new key of each row, as text.
	Hidden int
	// Returning: the client asked for rows.
	Returning bool
	// Chained: the new value of one row may be the old value of another under a unique constraint. Postgres's answer
	// depends on the order of the rows then.
	Chained bool
	// Tables are the table and those that follow it, each behind those that it refers to.
	Tables []MovedTable
}

// MovedTable is one of the tables whose rows move.
type MovedTable struct {
	// Filter has the name and the key columns.
	Filter Filter
	// Columns are all that are stored, with their types on the home shard.
	Columns []MovedColumn
}

// MovedColumn is a column of a MovedTable.
type MovedColumn struct {
	Name string
	Type uint32
}

// Shard is where a row with this key belongs; nil stands for NULL. The texts are as Postgres writes them. missing is the
// entry that must be looked up, or made, before it can be told.
func (t *MovedTable) Shard(
	m *directory.Map, entries *directory.Entries, key []*string,
) (shard directory.ShardID, missing *directory.MissingEntry, err error) {
	g, ok := m.Group(t.Filter.Group)
	if !ok {
		return "", nil, &Error{Code: codeStaleMap, Message: "the partition map has changed", Hint: "Try again."}
	}
	values := make([]directory.Value, len(key))
	for i, text := range key {
		c := t.Filter.column(i)
		if text == nil {
			values[i] = directory.Null(c.Type)
			continue
		}
		v, err := directory.ParseText(c.Type, *text)
		if err != nil {
			return "", nil, refuse("SET DateStyle = 'ISO'.", "the new value of column %q of the shard key of table %s is not certain", c.Name, t.Filter.Table)
		}
		values[i] = v
	}
	return t.Filter.locate(g, entries, values)
}

// Key are the key columns, those of the subpartition key behind the others.
func (t *MovedTable) Key() []KeyColumn { return append(slices.Clone(t.Filter.Key), t.Filter.Sub...) }

// movedKey is an assignment to a column of the shard key that may change it.
type movedKey struct {
	column string
	at     int
}

// planMove makes a plan of an UPDATE that may change shard keys. Everything but that is proved to be right already.
func (a *analysis) planMove(u *updateStmt, plan *Plan) *Error {
	r := a.target
	refused := func(hint, format string, args ...any) *Error {
		return refuse(hint, format, args...).at(a.position(a.moved.at))
	}
	if _, ok := a.env.Map.Group(r.table.Group); !ok || r.relation == nil {
		return refused(hintMove, "column %q is part of the shard key of table %s and cannot be changed", a.moved.column, r.name)
	}
	data := &MoveData{Returning: len(u.ReturningList) > 0, Chained: a.chained(u, r)}
	if err := a.follow(r.relation, r.table, data); err != nil {
		return err.at(a.position(a.moved.at))
	}
	data.Hidden = len(r.table.Key) + len(r.table.SubKey)
	clock := a.clockParameters()
	sql, err := rewrite(u, func(edited message) error {
		e := edited.(*updateStmt)
		alias := e.Relation.Alias.GetAliasname()
		if alias == "" {
			alias = e.Relation.Relname
		}
		for i, c := range data.Tables[0].Key() {
			e.ReturningList = append(e.ReturningList, targetNode("shardyard_key_"+itoa(i+1), castNode(columnNode(alias, c.Name), "text")))
		}
		if clock == nil {
			return nil
		}
		return a.fixTime(edited, clock)
	})
	if err != nil {
		return refused(hintMove, "an UPDATE of the shard key that cannot be written anew is not supported")
	}
	for i := range data.Tables {
		plan.Tables = appendName(plan.Tables, data.Tables[i].Filter.Table)
	}
	plan.Kind, plan.Modify, plan.Refusal = Modify, &ModifyData{Move: data}, nil
	plan.SQL, plan.Clock, plan.texts = sql, clock, a.texts
	a.valuesUsed = true
	return nil
}

const hintMove = "Delete the row and insert it with the new key."

// follow adds a table whose rows change their keys, and those that follow it by ON UPDATE CASCADE.
func (a *analysis) follow(r *catalog.Relation, t *directory.Table, data *MoveData) *Error {
	if slices.ContainsFunc(r.Triggers, func(t catalog.Trigger) bool { return t.Enabled != 'D' }) {
		return refuse(hintMove, "the shard key of table %s cannot be changed: its triggers would see the rows deleted and inserted", r.Name)
	}
	if r.RowSecurity {
		return refuse(hintMove, "the shard key of table %s cannot be changed: it has row security", r.Name)
	}
	moved := MovedTable{Filter: tableFilter(t)}
	for _, c := range r.Live() {
		if !c.Generated {
			moved.Columns = append(moved.Columns, MovedColumn{Name: c.Name, Type: c.Type})
		}
	}
	data.Tables = append(data.Tables, moved)
	for _, fk := range r.ForeignKeys {
		if !slices.ContainsFunc(data.Tables[:len(data.Tables)-1], func(t MovedTable) bool { return t.Filter.Table == fk.References }) && a.isSharded(fk.References) {
			return refuse(hintMove, "the shard key of table %s cannot be changed: its foreign key %q refers to rows on the new shard", r.Name, fk.Name)
		}
	}
	for _, name := range r.ReferencedBy {
		other, ok := a.env.Catalog.Relation(name)
		if !ok {
			continue
		}
		for _, fk := range other.ForeignKeys {
			if fk.References != r.Name {
				continue
			}
			table, found := a.env.Map.Table(name)
			switch {
			case fk.OnUpdate == 'a' || fk.OnUpdate == 'r':
			case fk.OnUpdate != 'c' || !found || table.Kind != directory.TableSharded:
				return refuse(hintMove, "the shard key of table %s cannot be changed: foreign key %q of table %s would change the key of its rows", r.Name, fk.Name, name)
			case slices.ContainsFunc(data.Tables, func(t MovedTable) bool { return t.Filter.Table == name }):
				return refuse(hintMove, "the shard key of table %s cannot be changed: table %s refers to it in several ways", r.Name, name)
			default:
				if err := a.follow(other, table, data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *analysis) isSharded(name directory.TableName) bool {
	t, ok := a.env.Map.Table(name)
	return ok && t.Kind == directory.TableSharded
}

// chained reports whether an UPDATE may give a row the value that another row had under a unique constraint: not if
// all columns of such constraints that it sets get one value for all rows.
func (a *analysis) chained(u *updateStmt, r *reference) bool {
	for _, n := range u.TargetList {
		t := n.GetResTarget()
		if t.GetVal().GetAConst() != nil || t.GetVal().GetParamRef() != nil || t.GetVal().GetTypeCast().GetArg().GetAConst() != nil ||
			t.GetVal().GetTypeCast().GetArg().GetParamRef() != nil {
			continue
		}
		for _, key := range r.relation.Keys {
			if !key.Deferrable && (slices.Contains(key.Columns, t.GetName()) || slices.Contains(key.Columns, "") || key.Partial || key.Exclusion) {
				return true
			}
		}
	}
	return false
}
