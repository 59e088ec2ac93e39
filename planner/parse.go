package planner

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shardyard/shardyard/directory"
)

// The parse tree, under names of ours: this file is the only one that knows where it comes from.
type (
	message = proto.Message
	node    = pg.Node

	selectStmt       = pg.SelectStmt
	insertStmt       = pg.InsertStmt
	updateStmt       = pg.UpdateStmt
	deleteStmt       = pg.DeleteStmt
	mergeStmt        = pg.MergeStmt
	mergeWhen        = pg.MergeWhenClause
	copyStmt         = pg.CopyStmt
	transactionStmt  = pg.TransactionStmt
	variableSetStmt  = pg.VariableSetStmt
	prepareStmt      = pg.PrepareStmt
	executeStmt      = pg.ExecuteStmt
	explainStmt      = pg.ExplainStmt
	declareStmt      = pg.DeclareCursorStmt
	createTableAs    = pg.CreateTableAsStmt
	withClause       = pg.WithClause
	rangeVar         = pg.RangeVar
	rangeSubselect   = pg.RangeSubselect
	rangeFunction    = pg.RangeFunction
	joinExpr         = pg.JoinExpr
	columnRef        = pg.ColumnRef
	paramRef         = pg.ParamRef
	constant         = pg.A_Const
	operation        = pg.A_Expr
	boolExpr         = pg.BoolExpr
	subLink          = pg.SubLink
	funcCall         = pg.FuncCall
	typeCast         = pg.TypeCast
	typeNameNode     = pg.TypeName
	sqlValueFunction = pg.SQLValueFunction
	collateClause    = pg.CollateClause
	truncateStmt     = pg.TruncateStmt
	defElem          = pg.DefElem
	aliasNode        = pg.Alias
	columnDef        = pg.ColumnDef
	alterTableCmd    = pg.AlterTableCmd
	alterTable       = pg.AlterTableStmt
)

const (
	opPlain        = pg.A_Expr_Kind_AEXPR_OP
	opAny          = pg.A_Expr_Kind_AEXPR_OP_ANY
	opIn           = pg.A_Expr_Kind_AEXPR_IN
	opBetween      = pg.A_Expr_Kind_AEXPR_BETWEEN
	opBetweenSym   = pg.A_Expr_Kind_AEXPR_BETWEEN_SYM
	boolAnd        = pg.BoolExprType_AND_EXPR
	boolOr         = pg.BoolExprType_OR_EXPR
	joinInner      = pg.JoinType_JOIN_INNER
	joinLeft       = pg.JoinType_JOIN_LEFT
	joinRight      = pg.JoinType_JOIN_RIGHT
	joinFull       = pg.JoinType_JOIN_FULL
	setOpNone      = pg.SetOperation_SETOP_NONE
	subLinkAny     = pg.SubLinkType_ANY_SUBLINK
	subLinkExists  = pg.SubLinkType_EXISTS_SUBLINK
	sortDesc       = pg.SortByDir_SORTBY_DESC
	sortUsing      = pg.SortByDir_SORTBY_USING
	nullsFirst     = pg.SortByNulls_SORTBY_NULLS_FIRST
	nullsLast      = pg.SortByNulls_SORTBY_NULLS_LAST
	limitDefault   = pg.LimitOption_LIMIT_OPTION_DEFAULT
	limitWithTies  = pg.LimitOption_LIMIT_OPTION_WITH_TIES
	conflictUpdate = pg.OnConflictAction_ONCONFLICT_UPDATE

	whenMatched   = pg.MergeMatchKind_MERGE_WHEN_MATCHED
	whenNoSource  = pg.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_SOURCE
	commandInsert = pg.CmdType_CMD_INSERT
	commandUpdate = pg.CmdType_CMD_UPDATE

	transBegin            = pg.TransactionStmtKind_TRANS_STMT_BEGIN
	transStart            = pg.TransactionStmtKind_TRANS_STMT_START
	transCommit           = pg.TransactionStmtKind_TRANS_STMT_COMMIT
	transRollback         = pg.TransactionStmtKind_TRANS_STMT_ROLLBACK
	transSavepoint        = pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT
	transRelease          = pg.TransactionStmtKind_TRANS_STMT_RELEASE
	transRollbackTo       = pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO
	transPrepare          = pg.TransactionStmtKind_TRANS_STMT_PREPARE
	transCommitPrepared   = pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED
	transRollbackPrepared = pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED

	varSetValue   = pg.VariableSetKind_VAR_SET_VALUE
	varSetDefault = pg.VariableSetKind_VAR_SET_DEFAULT
	varSetCurrent = pg.VariableSetKind_VAR_SET_CURRENT
	varSetMulti   = pg.VariableSetKind_VAR_SET_MULTI
	varReset      = pg.VariableSetKind_VAR_RESET
	varResetAll   = pg.VariableSetKind_VAR_RESET_ALL

	constraintIdentity = pg.ConstrType_CONSTR_IDENTITY
	constraintDefault  = pg.ConstrType_CONSTR_DEFAULT
	constraintNotNull  = pg.ConstrType_CONSTR_NOTNULL
	alterAddColumn     = pg.AlterTableType_AT_AddColumn
	alterColumnDefault = pg.AlterTableType_AT_ColumnDefault
	alterSetNotNull    = pg.AlterTableType_AT_SetNotNull
	alterAddIdentity   = pg.AlterTableType_AT_AddIdentity
	alterSetIdentity   = pg.AlterTableType_AT_SetIdentity
	alterDropIdentity  = pg.AlterTableType_AT_DropIdentity

	overridingNone   = pg.OverridingKind_OVERRIDING_NOT_SET
	overridingUser   = pg.OverridingKind_OVERRIDING_USER_VALUE
	overridingSystem = pg.OverridingKind_OVERRIDING_SYSTEM_VALUE

	dropCascade = pg.DropBehavior_DROP_CASCADE

	discardAll       = pg.DiscardMode_DISCARD_ALL
	discardPlans     = pg.DiscardMode_DISCARD_PLANS
	discardSequences = pg.DiscardMode_DISCARD_SEQUENCES

	objectTable            = pg.ObjectType_OBJECT_TABLE
	objectView             = pg.ObjectType_OBJECT_VIEW
	objectMaterializedView = pg.ObjectType_OBJECT_MATVIEW
	objectForeignTable     = pg.ObjectType_OBJECT_FOREIGN_TABLE
	objectTrigger          = pg.ObjectType_OBJECT_TRIGGER
	objectRule             = pg.ObjectType_OBJECT_RULE
	objectPolicy           = pg.ObjectType_OBJECT_POLICY
	objectColumn           = pg.ObjectType_OBJECT_COLUMN
	objectTabConstraint    = pg.ObjectType_OBJECT_TABCONSTRAINT
	objectIndex            = pg.ObjectType_OBJECT_INDEX
)

// parsed is the parse tree of a text.
type parsed struct {
	tree *pg.ParseResult
}

// parse parses a text of any number of statements. The error is that of our parser, for which the
// client never sees it.
func parse(sql string) (*parsed, error) {
	if tooDeep(sql) {
		return nil, errTooDeep
	}
	tree, err := pg.Parse(sql)
	if err != nil {
		return nil, err
	}
	return &parsed{tree: tree}, nil
}

// statement returns the only statement, nil if there is none, and how many there are.
func (p *parsed) statement() (message, int) {
	if len(p.tree.Stmts) == 0 {
		return nil, 0
	}
	return unwrap(p.tree.Stmts[0].Stmt), len(p.tree.Stmts)
}

// unwrap returns what a Node holds, nil if nothing.
func unwrap(n *node) message {
	if n == nil {
		return nil
	}
	m := n.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if field == nil {
		return nil
	}
	return m.Get(field).Message().Interface()
}

// walk calls visit for m and for everything beneath it, parents first, in the order of the fields;
// beneath what visit returns false for it does not go. Nodes are visited as what they hold.
func walk(m message, visit func(message) bool) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	if n, ok := m.(*node); ok {
		walk(unwrap(n), visit)
		return
	}
	if !visit(m) {
		return
	}
	children(m, func(child message) { walk(child, visit) })
}

// children calls visit for the messages directly beneath m, in the order of the fields; Nodes are
// replaced by what they hold.
func children(m message, visit func(message)) {
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.MessageKind || !r.Has(field) {
			continue
		}
		if !field.IsList() {
			visitHeld(r.Get(field).Message().Interface(), visit)
			continue
		}
		list := r.Get(field).List()
		for j := range list.Len() {
			visitHeld(list.Get(j).Message().Interface(), visit)
		}
	}
}

func visitHeld(m message, visit func(message)) {
	if n, ok := m.(*node); ok {
		m = unwrap(n)
	}
	if m != nil {
		visit(m)
	}
}

// kindName is the name of a message's type, "SelectStmt" for one.
func kindName(m message) string {
	if m == nil {
		return ""
	}
	return string(m.ProtoReflect().Descriptor().Name())
}

// stringField, boolField and messageField read a field of a statement that no code of ours treats
// specially; zero values where there is no such field.
func stringField(m message, name protoreflect.Name) string {
	r := m.ProtoReflect()
	if field := r.Descriptor().Fields().ByName(name); field != nil && field.Kind() == protoreflect.StringKind {
		return r.Get(field).String()
	}
	return ""
}

// location is the byte offset of a node in the text, -1 if it has none.
func location(m message) int {
	if m == nil {
		return -1
	}
	r := m.ProtoReflect()
	field := r.Descriptor().Fields().ByName("location")
	if field == nil {
		return -1
	}
	return int(r.Get(field).Int())
}

// rewrite returns the text of a SELECT, INSERT, UPDATE, DELETE, MERGE or ALTER TABLE after edit changed a copy of it. The result is
// proved to parse to exactly the edited tree; if it does not, the statement must not be rewritten.
func rewrite(statement message, edit func(message) error) (string, error) {
	edited := proto.Clone(statement)
	if err := edit(edited); err != nil {
		return "", err
	}
	tree, err := pg.Parse("SELECT") // for the version that Deparse insists on
	if err != nil {
		return "", fmt.Errorf("parse: %w", err)
	}
	raw := &pg.RawStmt{}
	switch edited := edited.(type) {
	case *selectStmt:
		raw.Stmt = &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: edited}}
	case *updateStmt:
		raw.Stmt = &pg.Node{Node: &pg.Node_UpdateStmt{UpdateStmt: edited}}
	case *deleteStmt:
		raw.Stmt = &pg.Node{Node: &pg.Node_DeleteStmt{DeleteStmt: edited}}
	case *insertStmt:
		raw.Stmt = &pg.Node{Node: &pg.Node_InsertStmt{InsertStmt: edited}}
	case *mergeStmt:
		raw.Stmt = &pg.Node{Node: &pg.Node_MergeStmt{MergeStmt: edited}}
	case *alterTable:
		raw.Stmt = &pg.Node{Node: &pg.Node_AlterTableStmt{AlterTableStmt: edited}}
	case *createTableAs:
		raw.Stmt = &pg.Node{Node: &pg.Node_CreateTableAsStmt{CreateTableAsStmt: edited}}
	default:
		return "", fmt.Errorf("rewrite: %s is not supported", kindName(statement))
	}
	tree.Stmts = []*pg.RawStmt{raw}
	sql, err := pg.Deparse(tree)
	if err != nil {
		return "", fmt.Errorf("deparse: %w", err)
	}
	again, err := pg.Parse(sql)
	if err != nil {
		return "", fmt.Errorf("parse what was deparsed: %w", err)
	}
	if len(again.Stmts) != 1 {
		return "", errors.New("deparsed text is not one statement")
	}
	want, got := proto.Clone(edited), unwrap(again.Stmts[0].Stmt)
	if kindName(got) != kindName(want) {
		return "", errors.New("deparsed text is another statement")
	}
	forgetLocations(want)
	forgetLocations(got)
	if !proto.Equal(want, got) {
		return "", errors.New("deparsed text means something else")
	}
	return sql, nil
}

// forgetLocations zeroes every location, so that trees of different texts can be compared.
func forgetLocations(m message) {
	walk(m, func(m message) bool {
		r := m.ProtoReflect()
		fields := r.Descriptor().Fields()
		for _, name := range []protoreflect.Name{"location", "arg_location", "payload_location", "stmt_location", "stmt_len"} {
			if field := fields.ByName(name); field != nil && field.Kind() == protoreflect.Int32Kind {
				r.Clear(field)
			}
		}
		return true
	})
}

// clockValue is the type of CURRENT_TIMESTAMP and its kin, "" for what has nothing to do with the time; precise: the
// precision is given.
func clockValue(f *sqlValueFunction) (name string, precise bool) {
	switch f.Op {
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE:
		return "date", false
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME:
		return "timetz", false
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N:
		return "timetz", true
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP:
		return "timestamptz", false
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N:
		return "timestamptz", true
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIME:
		return "time", false
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N:
		return "time", true
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP:
		return "timestamp", false
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:
		return "timestamp", true
	}
	return "", false
}

// clockName is the name of a result column that is CURRENT_TIMESTAMP or one of its kin.
func clockName(f *sqlValueFunction) string {
	switch f.Op {
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE:
		return "current_date"
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N:
		return "current_time"
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N:
		return "current_timestamp"
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIME, pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N:
		return "localtime"
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP, pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:
		return "localtimestamp"
	}
	return ""
}

// eachNode calls visit for every Node beneath m, parents first; beneath what visit returns false for it does not go.
func eachNode(m message, visit func(*node) bool) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	into := func(held message) {
		n, ok := held.(*node)
		switch {
		case !ok:
			eachNode(held, visit)
		case visit(n):
			eachNode(unwrap(n), visit)
		}
	}
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.MessageKind || !r.Has(field) {
			continue
		}
		if !field.IsList() {
			into(r.Get(field).Message().Interface())
			continue
		}
		list := r.Get(field).List()
		for j := range list.Len() {
			into(list.Get(j).Message().Interface())
		}
	}
}

// names returns the strings of a list of String nodes; ok is false if there is anything else in it.
func names(list []*node) (parts []string, ok bool) {
	for _, n := range list {
		s := n.GetString_()
		if s == nil {
			return nil, false
		}
		parts = append(parts, s.Sval)
	}
	return parts, true
}

// constantKind says what an A_Const holds.
type constantKind uint8

const (
	constNull  constantKind = iota
	constInt                // fits int4
	constFloat              // any other number
	constString
	constBool
	constBits
)

// constantOf returns the kind and the text of a constant; numbers have their sign.
func constantOf(c *constant) (constantKind, string) {
	switch {
	case c.Isnull:
		return constNull, ""
	case c.GetIval() != nil:
		return constInt, fmt.Sprint(c.GetIval().Ival)
	case c.GetFval() != nil:
		return constFloat, c.GetFval().Fval
	case c.GetSval() != nil:
		return constString, c.GetSval().Sval
	case c.GetBoolval() != nil:
		return constBool, fmt.Sprint(c.GetBoolval().Boolval)
	}
	return constBits, ""
}

// objectTypeOf is the name of an object type that a statement carries in the field ("OBJECT_TABLE").
func objectTypeOf(m message, field protoreflect.Name) string {
	r := m.ProtoReflect()
	f := r.Descriptor().Fields().ByName(field)
	if f == nil || f.Kind() != protoreflect.EnumKind {
		return ""
	}
	value := f.Enum().Values().ByNumber(r.Get(f).Enum())
	if value == nil {
		return ""
	}
	return string(value.Name())
}

func isProcedure(m message) bool { return m.(*pg.CreateFunctionStmt).IsProcedure }

func isReplace(m message) bool { return m.(*pg.CreateFunctionStmt).Replace }

// reindexedSchema is the schema of a REINDEX SCHEMA.
func reindexedSchema(m message) (string, bool) {
	r, ok := m.(*pg.ReindexStmt)
	if !ok || r.Kind != pg.ReindexObjectType_REINDEX_OBJECT_SCHEMA {
		return "", false
	}
	return r.Name, true
}

// functionCreated is the name of the function that a CREATE FUNCTION creates.
func functionCreated(m message) ([]string, bool) {
	parts, ok := names(m.(*pg.CreateFunctionStmt).Funcname)
	return parts, ok && len(parts) > 0
}

// createsInside reports whether a CREATE SCHEMA creates tables and the like in it.
func createsInside(m message) bool { return len(m.(*pg.CreateSchemaStmt).SchemaElts) > 0 }

func isVacuum(m message) bool { return m.(*pg.VacuumStmt).IsVacuumcmd }

func grantTag(m message) string {
	grant := true
	switch m := m.(type) {
	case *pg.GrantStmt:
		grant = m.IsGrant
	case *pg.GrantRoleStmt:
		if m.IsGrant {
			return "GRANT ROLE"
		}
		return "REVOKE ROLE"
	}
	if grant {
		return "GRANT"
	}
	return "REVOKE"
}

func createdObject(m message) string {
	if m.(*pg.CreateTableAsStmt).Objtype == objectMaterializedView {
		return "MATERIALIZED VIEW"
	}
	return "TABLE"
}

// temporaryObject reports whether a statement creates a temporary table, view or sequence.
func temporaryObject(m message) bool {
	var rv *rangeVar
	switch m := m.(type) {
	case *pg.CreateStmt:
		rv = m.Relation
	case *pg.ViewStmt:
		rv = m.View
	case *pg.CreateSeqStmt:
		rv = m.Sequence
	case *pg.CreateTableAsStmt:
		rv = m.Into.GetRel()
	}
	return rv != nil && (rv.Relpersistence == "t" || rv.Schemaname == "pg_temp")
}

// namesTemporary reports whether a statement about objects names one in the session's temporary schema.
func namesTemporary(m message) bool {
	found := false
	walk(m, func(inner message) bool {
		if s, ok := inner.(*pg.String); ok && s.Sval == "pg_temp" {
			found = true
		}
		return !found
	})
	return found
}

// isCascade reports whether a TRUNCATE says CASCADE.
func isCascade(m message) bool {
	t, ok := m.(*pg.TruncateStmt)
	return ok && t.Behavior == pg.DropBehavior_DROP_CASCADE
}

// maintainedRelations are the tables and indexes of a VACUUM, ANALYZE, CLUSTER or REINDEX; none: all.
func maintainedRelations(m message) []*rangeVar {
	if v, ok := m.(*pg.VacuumStmt); ok {
		var relations []*rangeVar
		for _, n := range v.Rels {
			relations = append(relations, n.GetVacuumRelation().GetRelation())
		}
		return relations
	}
	if main := mainRelation(m); main != nil {
		return []*rangeVar{main}
	}
	return nil
}

func isVacuumCommand(m message) bool {
	v, ok := m.(*pg.VacuumStmt)
	return ok && v.IsVacuumcmd
}

// isConcurrent reports whether a REINDEX says CONCURRENTLY.
func isConcurrent(m message) bool {
	r, ok := m.(*pg.ReindexStmt)
	return ok && hasOption(r.Params, "concurrently")
}

func isVerbose(m message) bool {
	switch m := m.(type) {
	case *pg.VacuumStmt:
		return hasOption(m.Options, "verbose")
	case *pg.ReindexStmt:
		return hasOption(m.Params, "verbose")
	case *pg.ClusterStmt:
		return hasOption(m.Params, "verbose")
	}
	return false
}

func hasOption(options []*node, name string) bool {
	return slices.ContainsFunc(options, func(n *node) bool { return n.GetDefElem().GetDefname() == name })
}

// concurrentIndex is the index of a CREATE or DROP INDEX CONCURRENTLY; ok is false for every other statement.
func concurrentIndex(m message) (index string, drops, ok bool) {
	switch m := m.(type) {
	case *pg.IndexStmt:
		if !m.Concurrent || m.Idxname == "" {
			return "", false, m.Concurrent
		}
		if schema := m.Relation.GetSchemaname(); schema != "" {
			index = directory.QuoteIdentifier(schema) + "."
		}
		return index + directory.QuoteIdentifier(m.Idxname), false, true
	case *pg.DropStmt:
		for _, parts := range objectNames(m) {
			var quoted []string
			for _, part := range parts {
				quoted = append(quoted, directory.QuoteIdentifier(part))
			}
			index = strings.Join(quoted, ".")
		}
		return index, true, m.Concurrent
	}
	return "", false, false
}

// uniqueColumns are the columns that a unique index compares by their own equality.
func uniqueColumns(m message) (columns []string, unique bool) {
	s, ok := m.(*pg.IndexStmt)
	if !ok || !s.Unique {
		return nil, false
	}
	for _, n := range s.IndexParams {
		if e := n.GetIndexElem(); e.GetName() != "" && len(e.GetCollation()) == 0 && len(e.GetOpclass()) == 0 {
			columns = append(columns, e.GetName())
		}
	}
	return columns, true
}

// lockMode is the number of a LOCK TABLE's mode.
func lockMode(m message) int {
	if l, ok := m.(*pg.LockStmt); ok {
		return int(l.Mode)
	}
	return 0
}

// mainRelation is the relation that a statement changes, nil if it has several or none.
func mainRelation(m message) *rangeVar {
	r := m.ProtoReflect()
	for _, name := range []protoreflect.Name{"relation", "table", "view", "sequence"} {
		f := r.Descriptor().Fields().ByName(name)
		if f == nil || f.Kind() != protoreflect.MessageKind || f.IsList() || !r.Has(f) {
			continue
		}
		if rv, ok := r.Get(f).Message().Interface().(*rangeVar); ok {
			return rv
		}
	}
	return nil
}

// objectNames are the relations that a statement names by lists of strings: DROP TABLE a.b, COMMENT ON
// COLUMN a.b.c, DROP TRIGGER x ON a.b.
func objectNames(m message) [][]string {
	switch m := m.(type) {
	case *pg.DropStmt:
		var all [][]string
		for _, n := range m.Objects {
			all = append(all, objectRelation(n, m.RemoveType)...)
		}
		return all
	case *pg.CommentStmt:
		return objectRelation(m.Object, m.Objtype)
	case *pg.SecLabelStmt:
		return objectRelation(m.Object, m.Objtype)
	}
	return nil
}

func objectRelation(n *node, object pg.ObjectType) [][]string {
	parts, ok := names(n.GetList().GetItems())
	if !ok || len(parts) == 0 {
		return nil
	}
	switch object {
	case objectTable, objectView, objectMaterializedView, objectForeignTable, objectIndex, pg.ObjectType_OBJECT_SEQUENCE:
		return [][]string{parts}
	case objectTrigger, objectRule, objectPolicy, objectColumn, objectTabConstraint:
		if len(parts) > 1 {
			return [][]string{parts[:len(parts)-1]}
		}
	}
	return nil
}

func planDiscard(m message) *Plan {
	plan := &Plan{Kind: Discard, Name: "TEMP", ReadOnly: true}
	switch m.(*pg.DiscardStmt).Target {
	case discardAll:
		plan.Name = "ALL"
	case discardPlans:
		plan.Name = "PLANS"
	case discardSequences:
		plan.Name = "SEQUENCES"
	}
	plan.Tag = "DISCARD " + plan.Name
	return plan
}

func planFetch(m message) *Plan {
	fetch := m.(*pg.FetchStmt)
	plan := &Plan{Kind: Fetch, Tag: "FETCH", Name: fetch.Portalname, ReadOnly: true}
	if fetch.Ismove {
		plan.Tag = "MOVE"
	}
	return plan
}
