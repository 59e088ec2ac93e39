package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
)

// numbering changes an ALTER TABLE that has to do with the sequences of columns into what the other shards than the home shard run: the
// sequences are there, and elsewhere the columns have a default that raises an error.
type numbering struct {
	a       *analysis
	table   *directory.Table
	changed bool
	refused *Error
}

// sequencesElsewhere is the text of an ALTER TABLE for the shards that do not have the sequences; empty: that of the client.
func (a *analysis) sequencesElsewhere(m message, tables []directory.TableName) (string, *Error) {
	alter, ok := m.(*alterTable)
	if !ok || len(tables) != 1 {
		return "", nil
	}
	n := &numbering{a: a}
	if n.table, ok = a.env.Map.Table(tables[0]); !ok {
		return "", nil
	}
	sql, err := rewrite(alter, func(edited message) error {
		for _, cmd := range edited.(*alterTable).Cmds {
			n.command(cmd.GetAlterTableCmd())
		}
		return nil
	})
	switch {
	case n.refused != nil:
		return "", n.refused
	case !n.changed:
		return "", nil
	case err != nil:
		return "", refuse("Use a statement of its own for the column.", "this ALTER TABLE cannot be rewritten for the shards that do not have the sequence")
	}
	if g, ok := a.env.Map.Group(n.table.Group); n.table.Kind != directory.TableSharded || !ok || !slices.Contains(g.Shards(), a.env.Map.Home) {
		return "", refuse("Leave the column without a sequence.", "a sequence for a column of table %s, of which the home shard has no part, is not supported", n.table.Name)
	}
	a.valuesUsed = true
	return sql, nil
}

func (n *numbering) command(cmd *alterTableCmd) {
	switch cmd.GetSubtype() {
	case alterAddColumn:
		n.column(cmd.GetDef().GetColumnDef())
	case alterAddIdentity:
		n.changed = true
		cmd.Subtype, cmd.Def = alterColumnDefault, unnumberedNode()
	case alterDropIdentity:
		n.changed = true
		cmd.Subtype, cmd.MissingOk = alterColumnDefault, false
	case alterSetIdentity: // such a column is NOT NULL anyway
		n.changed = true
		cmd.Subtype, cmd.Def = alterSetNotNull, nil
	case alterColumnDefault:
		if cmd.Def != nil && n.draws(cmd.Def) {
			rel, ok := n.a.env.Catalog.Relation(n.table.Name)
			if c, found := rel.Column(cmd.Name); ok && found {
				if _, integer := n.a.integerType(c); !integer {
					n.refuse("column %q has a sequence and is not an integer", cmd.Name)
				}
			}
			cmd.Def = unnumberedNode()
		}
	default:
		if callsNextval(cmd) {
			n.refuse("nextval is not supported in this place of an ALTER TABLE of a sharded table")
		}
	}
}

// column changes a column that is added.
func (n *numbering) column(c *columnDef) {
	numbered := false
	if t, ok := serialType(c.GetTypeName()); ok {
		numbered = true
		c.TypeName.Names = []*node{stringNode("pg_catalog"), stringNode(t)}
	}
	kept := c.Constraints[:0]
	for _, constraint := range c.Constraints {
		k := constraint.GetConstraint()
		switch {
		case k.GetContype() == constraintIdentity:
			numbered = true
			continue
		case k.GetContype() == constraintDefault && n.draws(k.RawExpr):
			if !isIntegerName(c.TypeName) {
				n.refuse("column %q has a sequence and is not an integer", c.Colname)
			}
			k.RawExpr = unnumberedNode()
		case callsNextval(constraint):
			n.refuse("nextval is not supported in this place of an ALTER TABLE of a sharded table")
		}
		kept = append(kept, constraint)
	}
	c.Constraints = kept
	if numbered {
		n.changed = true
		c.Constraints = append(c.Constraints,
			constraintOf(constraintNotNull, nil),
			constraintOf(constraintDefault, unnumberedNode()))
	}
}

// draws reports whether an expression is nextval('s'); any other with nextval in it is refused.
func (n *numbering) draws(expression *node) bool {
	if _, ok := n.a.nextvalOf(expression.GetFuncCall()); ok {
		n.changed = true
		return true
	}
	if callsNextval(expression) {
		n.refuse("a default of a column of a sharded table that uses a sequence must be nextval('…') itself")
	}
	return false
}

func (n *numbering) refuse(format string, args ...any) {
	if n.refused == nil {
		n.refused = refuse("Use serial, GENERATED … AS IDENTITY, or DEFAULT nextval('…') of an integer column.", format, args...)
	}
}

func callsNextval(m message) bool {
	found := false
	walk(m, func(inner message) bool {
		if f, ok := inner.(*funcCall); ok {
			parts, named := names(f.Funcname)
			found = found || named && len(parts) > 0 && parts[len(parts)-1] == "nextval"
		}
		return !found
	})
	return found
}

// serialType is the integer type of serial and its kin.
func serialType(t *typeNameNode) (string, bool) {
	parts, ok := names(t.GetNames())
	if !ok || len(parts) != 1 {
		return "", false
	}
	switch parts[0] {
	case "smallserial", "serial2":
		return "int2", true
	case "serial", "serial4":
		return "int4", true
	case "bigserial", "serial8":
		return "int8", true
	}
	return "", false
}

func isIntegerName(t *typeNameNode) bool {
	parts, ok := names(t.GetNames())
	return ok && len(parts) > 0 && len(t.GetArrayBounds()) == 0 && slices.Contains([]string{"int2", "int4", "int8"}, parts[len(parts)-1])
}
