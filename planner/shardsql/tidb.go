package shardsql

import (
	"fmt"
	"strconv"
	"strings"

	tidb "github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"
	"github.com/pingcap/tidb/pkg/parser/opcode"
	driver "github.com/pingcap/tidb/pkg/parser/test_driver"

	"github.com/shardyard/shardyard/planner/lexer"
)

// parse reads the partition clause of a SHARD TABLE statement whose method, key
// and options are known; the next token is the one behind the key.
func (c *clause) parse(statement *ShardTable) *Error {
	if statement.Colocate != nil {
		return c.parseColocated(statement)
	}
	columns := make([]string, len(statement.Key))
	for i := range columns {
		columns[i] = `"k` + strconv.Itoa(i) + `"`
	}
	c.out.WriteString(`CREATE TABLE "t" ("k" INT) PARTITION BY`)
	if statement.Method == MethodHash {
		c.emit(c.begin, `HASH ("k0")`)
	} else {
		c.emit(c.begin, strings.ToUpper(string(statement.Method))+" COLUMNS ("+strings.Join(columns, ", ")+")")
	}
	if err := c.rewrite(); err != nil {
		return err
	}
	c.emit(c.end, ";")
	if statement.Method != MethodHash && c.definitions == 0 {
		return c.failAt(c.end, codeSyntax, strings.ToUpper(string(statement.Method))+" needs the list of its partitions", "Write BY "+
			strings.ToUpper(string(statement.Method))+" (columns) (PARTITION name …, …).")
	}
	_, invalid := c.run(c.out.String(), 0)
	if invalid != nil && invalid.Code == codeSyntax {
		return invalid
	}
	if err := c.subpartitioned(statement); err != nil {
		return err
	}
	if err := c.define(statement); err != nil {
		return err
	}
	return invalid
}

// parseColocated reads what may follow the key if the partitions are those of
// another table: the key of the subpartitions.
func (c *clause) parseColocated(statement *ShardTable) *Error {
	if c.isWord(c.next, "subpartition") && c.isWord(c.next+1, "by") {
		c.next += 2
		if err := c.subpartitionMethod(); err != nil {
			return err
		}
	}
	if err := c.subpartitioned(statement); err != nil {
		return err
	}
	if c.next < c.end {
		return c.failAt(c.next, codeSyntax, `a colocated table has the partitions of "`+statement.Colocate.Name+`"`,
			"Leave out the number and the list of partitions, or COLOCATE WITH.")
	}
	return nil
}

// subpartitioned notes the key of the subpartitions.
func (c *clause) subpartitioned(statement *ShardTable) *Error {
	if c.subKey == nil {
		return nil
	}
	if statement.Method == MethodHash {
		return &Error{Code: codeUnsupported, Message: "HASH partitions cannot have subpartitions", Hint: "Use more partitions, or a key of several columns.", Position: c.subKey[0].Position}
	}
	statement.SubMethod, statement.SubKey = MethodHash, c.subKey
	return nil
}

// define reads the list of partitions and checks it against the method, the
// key and the numbers given.
func (c *clause) define(statement *ShardTable) *Error {
	statement.Partitions, statement.Subpartitions = c.partitions, c.subpartitions
	if c.definitions > 0 {
		// REORGANIZE takes the same list, and its parser does not check it, so the
		// checks are made here, where the token at fault is known.
		tree, err := c.run(`ALTER TABLE "t" REORGANIZE PARTITION "p" INTO`+c.out.String()[c.definitions:], c.definitionsLine)
		if err != nil {
			return err
		}
		specs := tree.(*ast.AlterTableStmt).Specs
		if statement.Defs, err = c.partitionDefs(specs[0].PartDefinitions); err != nil {
			return err
		}
		if err := c.checkDefs(statement); err != nil {
			return err
		}
	}
	if max(1, statement.Partitions)*max(1, statement.Subpartitions) > maxPartitions {
		return c.failAt(c.begin, codeInvalidValue, "more than "+strconv.Itoa(maxPartitions)+" partitions", "Subpartitions are multiplied by partitions.")
	}
	return nil
}

// placement reads PARTITION p PLACEMENT POLICY = shard.
func (c *clause) placement(statement *AlterShardTable) *Error {
	spec, err := c.alter()
	if err != nil {
		return err
	}
	if spec.Tp != ast.AlterTablePartitionOptions || len(spec.PartitionNames) != 1 {
		return c.syntaxError(c.begin+2, "Expected PLACEMENT POLICY = shard.")
	}
	if statement.Partitions, err = c.partitionNames(spec.PartitionNames); err != nil {
		return err
	}
	statement.Placement, statement.PlacementPosition, err = c.placementOf(spec.Options)
	if err == nil && statement.Placement == "" {
		return c.syntaxError(c.end, "Expected PLACEMENT POLICY = shard.")
	}
	return err
}

// reorganize reads REORGANIZE PARTITION p, … INTO (…).
func (c *clause) reorganize(statement *AlterShardTable) *Error {
	spec, err := c.alter()
	if err != nil {
		return err
	}
	if spec.Tp != ast.AlterTableReorganizePartition || len(spec.PartitionNames) == 0 {
		return c.syntaxError(c.begin+1, "Expected PARTITION p, … INTO (…).")
	}
	if statement.Partitions, err = c.partitionNames(spec.PartitionNames); err != nil {
		return err
	}
	if statement.Into, err = c.partitionDefs(spec.PartDefinitions); err != nil {
		return err
	}
	return c.checkNames(statement.Into)
}

// alter parses the rest of an ALTER SHARD TABLE statement.
func (c *clause) alter() (*ast.AlterTableSpec, *Error) {
	c.out.WriteString(`ALTER TABLE "t"`)
	if err := c.rewrite(); err != nil {
		return nil, err
	}
	c.emit(c.end, ";")
	tree, err := c.run(c.out.String(), 0)
	if err != nil {
		return nil, err
	}
	specs := tree.(*ast.AlterTableStmt).Specs
	if len(specs) != 1 {
		return nil, c.syntaxError(c.end, "")
	}
	return specs[0], nil
}

// run gives text to TiDB's parser. Its first line is ours; each of the others
// stands for a token, the first of them for the one at c.lines[offset].
func (c *clause) run(text string, offset int) (ast.StmtNode, *Error) {
	parser := tidb.New()
	parser.SetSQLMode(mysql.ModeANSIQuotes | mysql.ModeNoBackslashEscapes)
	trees, _, err := parser.ParseSQL(text)
	if err != nil {
		// A syntax error has no other form than its text: line 4 column 7 near "…".
		// Any other error is a check of the definitions.
		var line, column int
		if n, _ := fmt.Sscanf(err.Error(), "line %d column %d", &line, &column); n == 2 {
			i := offset + line - 2
			if i < 0 || i >= len(c.lines) {
				return nil, c.syntaxError(c.end, "")
			}
			return nil, c.syntaxError(c.lines[i], "")
		}
		return nil, c.failAt(c.begin, codeUnsupported, "partitions cannot be defined this way: "+err.Error(), "")
	}
	if len(trees) != 1 {
		return nil, c.syntaxError(c.end, "")
	}
	return trees[0], nil
}

// unmark returns the kind and the token of a placeholder.
func (c *clause) unmark(placeholder string) (letter byte, i int, ok bool) {
	if len(placeholder) < 2 {
		return 0, 0, false
	}
	i, err := strconv.Atoi(placeholder[1:])
	return placeholder[0], i, err == nil && i >= c.begin && i < c.end
}

// nameOf returns the name that a placeholder stands for.
func (c *clause) nameOf(placeholder string) (Column, *Error) {
	letter, i, ok := c.unmark(placeholder)
	if !ok || letter != markName {
		return Column{}, c.internalError()
	}
	c.next = i
	name, at, err := c.identifier("a name")
	return Column{Name: name, Position: c.positionOf(at)}, err
}

// internalError is returned where TiDB's parser hands back something that was
// never given to it.
func (c *clause) internalError() *Error {
	return c.failAt(c.begin, codeUnsupported, "partitions cannot be defined this way", "")
}

func (c *clause) partitionNames(names []ast.CIStr) ([]Column, *Error) {
	var columns []Column
	seen := make(map[string]bool)
	for _, name := range names {
		column, err := c.nameOf(name.O)
		if err != nil {
			return nil, err
		}
		if seen[column.Name] {
			return nil, &Error{Code: codeDuplicateObject, Message: `partition "` + column.Name + `" appears more than once`, Position: column.Position}
		}
		seen[column.Name] = true
		columns = append(columns, column)
	}
	return columns, nil
}

// placementOf returns the shard that the options of a partition name.
func (c *clause) placementOf(options []*ast.TableOption) (shard string, at int, err *Error) {
	for i, option := range options {
		if option.Tp != ast.TableOptionType(ast.PlacementOptionPolicy) {
			return "", 0, c.internalError()
		}
		name, err := c.nameOf(option.StrValue)
		if err != nil {
			return "", 0, err
		}
		if i > 0 {
			return "", 0, &Error{Code: codeSyntax, Message: "conflicting or redundant options", Position: name.Position}
		}
		shard, at = name.Name, name.Position
	}
	return shard, at, nil
}

// partitionDefs converts the definitions of partitions.
func (c *clause) partitionDefs(definitions []*ast.PartitionDefinition) ([]PartitionDef, *Error) {
	var defs []PartitionDef
	for _, definition := range definitions {
		name, err := c.nameOf(definition.Name.O)
		if err != nil {
			return nil, err
		}
		def := PartitionDef{Name: name.Name, Position: name.Position}
		if def.Placement, def.PlacementPosition, err = c.placementOf(definition.Options); err != nil {
			return nil, err
		}
		if err := c.values(&def, definition.Clause); err != nil {
			return nil, err
		}
		for _, sub := range definition.Sub {
			name, err := c.nameOf(sub.Name.O)
			if err != nil {
				return nil, err
			}
			subDef := SubpartitionDef{Name: name.Name, Position: name.Position}
			if subDef.Placement, subDef.PlacementPosition, err = c.placementOf(sub.Options); err != nil {
				return nil, err
			}
			def.Subpartitions = append(def.Subpartitions, subDef)
		}
		defs = append(defs, def)
	}
	return defs, nil
}

// values converts VALUES LESS THAN (…), VALUES IN (…) or DEFAULT.
func (c *clause) values(def *PartitionDef, definition ast.PartitionDefinitionClause) *Error {
	switch definition := definition.(type) {
	case *ast.PartitionDefinitionClauseNone:
		return nil
	case *ast.PartitionDefinitionClauseLessThan:
		for _, expression := range definition.Exprs {
			literal, err := c.literalOf(expression)
			if err != nil {
				return err
			}
			if literal.Kind == LiteralNull {
				return &Error{Code: codeSyntax, Message: "cannot specify NULL in range bound", Hint: "A row whose key is NULL belongs to no partition of RANGE.", Position: literal.Position}
			}
			def.LessThan = append(def.LessThan, literal)
		}
		return nil
	case *ast.PartitionDefinitionClauseIn:
		if len(definition.Values) == 1 && len(definition.Values[0]) == 1 {
			if _, isDefault := definition.Values[0][0].(*ast.DefaultExpr); isDefault {
				def.Default = true
				return nil
			}
		}
		for _, row := range definition.Values {
			var tuple []Literal
			for _, expression := range row {
				literal, err := c.literalOf(expression)
				if err != nil {
					return err
				}
				if literal.Kind == LiteralMaxValue {
					return &Error{Code: codeSyntax, Message: "MAXVALUE is allowed in VALUES LESS THAN only", Position: literal.Position}
				}
				tuple = append(tuple, literal)
			}
			def.In = append(def.In, tuple)
		}
		return nil
	}
	return c.internalError()
}

// literalOf returns the literal that an expression of placeholders stands for.
func (c *clause) literalOf(expression ast.ExprNode) (Literal, *Error) {
	switch expression := expression.(type) {
	case *ast.ParenthesesExpr:
		return c.literalOf(expression.Expr)
	case *ast.UnaryOperationExpr:
		literal, err := c.literalOf(expression.V)
		if err != nil || literal.Kind != LiteralNumber {
			return Literal{}, c.internalError()
		}
		if expression.Op == opcode.Minus {
			literal.Text = "-" + literal.Text
		} else if expression.Op != opcode.Plus {
			return Literal{}, c.internalError()
		}
		return literal, nil
	case *driver.ValueExpr:
		return c.unmarkLiteral(expression.GetString())
	case *ast.RowExpr:
		// A tuple that is longer than one value deep, or where one value stands.
		literal, err := c.literalOf(expression.Values[0])
		if err != nil {
			return Literal{}, err
		}
		return Literal{}, &Error{Code: codeSyntax, Message: "a list of values is not allowed here", Position: literal.Position}
	}
	return Literal{}, c.internalError()
}

// unmarkLiteral returns the literal that a placeholder stands for.
func (c *clause) unmarkLiteral(placeholder string) (Literal, *Error) {
	letter, i, ok := c.unmark(placeholder)
	if !ok {
		return Literal{}, c.internalError()
	}
	literal := Literal{Position: c.positionOf(i)}
	switch letter {
	case markString:
		literal.Kind, literal.Text = LiteralString, lexer.StringText(c.text(i))
	case markNumber:
		literal.Kind, literal.Text = LiteralNumber, numberText(c.text(i))
	case markBool:
		literal.Kind, literal.Text = LiteralBool, strings.ToLower(c.text(i))
	case markNull:
		literal.Kind = LiteralNull
	case markMaxValue:
		literal.Kind = LiteralMaxValue
	default:
		return Literal{}, c.internalError()
	}
	return literal, nil
}
