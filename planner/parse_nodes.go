package planner

import (
	"fmt"
	"math"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/shardyard/shardyard/planner/catalog"
)

// The constructors that rewriting needs.

func targetNode(name string, value *node) *node {
	return &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Name: name, Val: value}}}
}

func integerNode(n int64) *node {
	if n <= 1<<31-1 {
		return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Ival{Ival: &pg.Integer{Ival: int32(n)}}}}}
	}
	return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Fval{Fval: &pg.Float{Fval: fmt.Sprint(n)}}}}}
}

// sumNode adds two counts of rows. Their sum may be greater than a bigint, which then means all rows; as
// does NULL for either.
func sumNode(left, right *node) *node {
	sum := &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{
		Kind: opPlain, Name: []*node{stringNode("+")}, Lexpr: castNode(left, "numeric"), Rexpr: castNode(right, "numeric"),
	}}}
	most := castNode(stringConstant(strconv.FormatInt(math.MaxInt64, 10)), "numeric")
	return bigintNode(&pg.Node{Node: &pg.Node_MinMaxExpr{MinMaxExpr: &pg.MinMaxExpr{
		Op: pg.MinMaxOp_IS_LEAST, Args: []*node{sum, most},
	}}})
}

func stringConstant(s string) *node {
	return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Sval{Sval: &pg.String{Sval: s}}}}}
}

// bigintNode casts to bigint; a bare parameter of LIMIT is one anyway.
func bigintNode(n *node) *node { return castNode(n, "int8") }

func castNode(n *node, builtin string) *node {
	return &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{
		Arg: n, TypeName: &pg.TypeName{Names: []*node{stringNode("pg_catalog"), stringNode(builtin)}, Typemod: -1},
	}}}
}

func timesZero(n *node) *node {
	return &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{
		Kind: opPlain, Name: []*node{stringNode("*")}, Lexpr: n, Rexpr: integerNode(0),
	}}}
}

func cloneNode(n *node) *node { return proto.Clone(n).(*node) }

func cloneInsert(i *insertStmt) *insertStmt { return proto.Clone(i).(*insertStmt) }

// isPlainCreateAs reports whether a CREATE TABLE AS makes a table from a SELECT or the like.
func isPlainCreateAs(c *createTableAs) bool {
	return c.Objtype == pg.ObjectType_OBJECT_TABLE && c.Query.GetSelectStmt() != nil
}

// asCreate is a SELECT INTO as CREATE TABLE AS.
func asCreate(sel *selectStmt) *createTableAs {
	sel = proto.Clone(sel).(*selectStmt)
	c := &createTableAs{Query: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}}, Objtype: pg.ObjectType_OBJECT_TABLE}
	for arm := sel; arm != nil && c.Into == nil; arm = arm.Larg {
		c.Into, arm.IntoClause = arm.IntoClause, nil
	}
	return c
}

// valuesNode is VALUES with one row.
func valuesNode(row []*node) *node {
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
		ValuesLists: []*node{{Node: &pg.Node_List{List: &pg.List{Items: row}}}}, LimitOption: limitDefault, Op: setOpNone,
	}}}
}

// castPrecise casts to a type of Postgres with a precision.
func castPrecise(n *node, builtin string, precision int64) *node {
	cast := castNode(n, builtin)
	cast.GetTypeCast().TypeName.Typmods = []*node{integerNode(precision)}
	return cast
}

func paramNode(number int) *node {
	return &pg.Node{Node: &pg.Node_ParamRef{ParamRef: &pg.ParamRef{Number: int32(number)}}}
}

func columnNode(table, column string) *node {
	return &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: []*node{stringNode(table), stringNode(column)}}}}
}

func stringNode(s string) *node {
	return &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: s}}}
}

// chosenRows is an item of FROM with those rows of another, VALUES, of which a parameter of an array type has the
// numbers. The columns are those of the item, whose rows have their number behind them.
func chosenRows(values *rangeSubselect, columns []string, number string, param int) *node {
	name := values.Alias.GetAliasname()
	inner := proto.Clone(values).(*rangeSubselect)
	inner.Alias.Colnames = nil
	sel := &pg.SelectStmt{LimitOption: limitDefault, Op: setOpNone}
	for _, c := range columns {
		inner.Alias.Colnames = append(inner.Alias.Colnames, stringNode(c))
		sel.TargetList = append(sel.TargetList, targetNode("", columnNode(name, c)))
	}
	inner.Alias.Colnames = append(inner.Alias.Colnames, stringNode(number))
	sel.FromClause = []*node{{Node: &pg.Node_RangeSubselect{RangeSubselect: inner}}}
	sel.WhereClause = &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{
		Kind: opAny, Name: []*node{stringNode("=")}, Lexpr: columnNode(name, number), Rexpr: paramNode(param),
	}}}
	return &pg.Node{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}}, Alias: &pg.Alias{Aliasname: name},
	}}}
}

// databaseStatement reads a statement that makes, drops, renames or alters a whole database.
func databaseStatement(m message) (DatabaseData, bool) {
	switch m := m.(type) {
	case *pg.CreatedbStmt:
		data := DatabaseData{Action: CreateDatabase, Name: m.Dbname}
		for _, option := range m.Options {
			if e := option.GetDefElem(); e.GetDefname() == "template" {
				data.Other = e.GetArg().GetString_().GetSval()
			}
		}
		return data, true
	case *pg.DropdbStmt:
		return DatabaseData{Action: DropDatabase, Name: m.Dbname, IfExists: m.MissingOk, Force: hasOption(m.Options, "force")}, true
	case *pg.RenameStmt:
		if m.RenameType == pg.ObjectType_OBJECT_DATABASE {
			return DatabaseData{Action: RenameDatabase, Name: m.Subname, Other: m.Newname}, true
		}
	case *pg.AlterDatabaseStmt:
		return DatabaseData{Action: AlterDatabase, Name: m.Dbname}, true
	case *pg.AlterDatabaseSetStmt:
		return DatabaseData{Action: AlterDatabase, Name: m.Dbname}, true
	case *pg.AlterOwnerStmt:
		if m.ObjectType == pg.ObjectType_OBJECT_DATABASE {
			return DatabaseData{Action: AlterDatabase, Name: m.Object.GetString_().GetSval()}, true
		}
	}
	return DatabaseData{}, false
}

// unnumberedNode is the default of numbered columns on other shards than the home shard.
func unnumberedNode() *node {
	return &pg.Node{Node: &pg.Node_FuncCall{FuncCall: &pg.FuncCall{
		Funcname: []*node{stringNode("shardyard"), stringNode("unnumbered")}, Funcformat: pg.CoercionForm_COERCE_EXPLICIT_CALL,
	}}}
}

// constraintOf is a constraint of a column.
func constraintOf(kind pg.ConstrType, expression *node) *node {
	return &pg.Node{Node: &pg.Node_Constraint{Constraint: &pg.Constraint{Contype: kind, RawExpr: expression}}}
}

// tableSelect selects columns of one table's rows that satisfy all conditions.
func tableSelect(r *reference, columns []*catalog.Column, conditions []*node) *selectStmt {
	sel := &pg.SelectStmt{LimitOption: limitDefault, Op: setOpNone}
	for _, c := range columns {
		sel.TargetList = append(sel.TargetList, targetNode("", columnNode(r.alias, c.Name)))
	}
	sel.FromClause = []*node{{Node: &pg.Node_RangeVar{RangeVar: &pg.RangeVar{
		Schemaname: r.name.Schema, Relname: r.name.Name, Inh: !r.only, Relpersistence: "p", Alias: &pg.Alias{Aliasname: r.alias},
	}}}}
	switch len(conditions) {
	case 0:
	case 1:
		sel.WhereClause = conditions[0]
	default:
		sel.WhereClause = &pg.Node{Node: &pg.Node_BoolExpr{BoolExpr: &pg.BoolExpr{Boolop: boolAnd, Args: conditions}}}
	}
	return sel
}

func cloneSelect(sel *selectStmt) *selectStmt { return proto.Clone(sel).(*selectStmt) }

// sameNode reports whether two expressions are written alike.
func sameNode(a, b *node) bool {
	left, right := proto.Clone(a), proto.Clone(b)
	forgetLocations(left)
	forgetLocations(right)
	return proto.Equal(left, right)
}

// callNode calls a function of Postgres.
func callNode(function string, args ...*node) *node {
	return &pg.Node{Node: &pg.Node_FuncCall{FuncCall: &pg.FuncCall{
		Funcname: []*node{stringNode("pg_catalog"), stringNode(function)}, Args: args, Funcformat: pg.CoercionForm_COERCE_EXPLICIT_CALL,
	}}}
}

// callOf is the call of another aggregate of Postgres with the same arguments and filter.
func callOf(f *funcCall, function string) *node {
	call := proto.Clone(f).(*funcCall)
	call.Funcname = []*node{stringNode("pg_catalog"), stringNode(function)}
	return &pg.Node{Node: &pg.Node_FuncCall{FuncCall: call}}
}

func quotientNode(left, right *node) *node {
	return &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: opPlain, Name: []*node{stringNode("/")}, Lexpr: left, Rexpr: right}}}
}

func trueNode() *node {
	return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Boolval{Boolval: &pg.Boolean{Boolval: true}}}}}
}

func tempTableNode(name string) *node {
	return &pg.Node{Node: &pg.Node_RangeVar{RangeVar: &pg.RangeVar{Schemaname: "pg_temp", Relname: name, Inh: true, Relpersistence: "p"}}}
}
