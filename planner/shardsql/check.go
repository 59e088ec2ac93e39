package shardsql

import (
	"fmt"
	"math/big"
	"strings"
)

// numberText returns a number in plain decimal notation: the input functions of
// servers before 16 know neither 0x1F nor 1_000.
func numberText(text string) string {
	text = strings.ReplaceAll(text, "_", "")
	if len(text) > 2 && text[0] == '0' && strings.IndexByte("xXoObB", text[1]) >= 0 {
		if n, ok := new(big.Int).SetString(text, 0); ok {
			return n.String()
		}
	}
	return text
}

// checkNames refuses a name given to two partitions, or to two subpartitions.
func (p *parser) checkNames(defs []PartitionDef) *Error {
	partitions, subpartitions := make(map[string]bool), make(map[string]bool)
	for _, def := range defs {
		if partitions[def.Name] {
			return &Error{Code: codeDuplicateObject, Message: fmt.Sprintf("partition \"%s\" is defined twice", def.Name), Position: def.Position}
		}
		partitions[def.Name] = true
		for _, sub := range def.Subpartitions {
			if subpartitions[sub.Name] {
				return &Error{Code: codeDuplicateObject, Message: fmt.Sprintf("subpartition \"%s\" is defined twice", sub.Name),
					Hint: "Names of subpartitions are unique in the whole table.", Position: sub.Position}
			}
			subpartitions[sub.Name] = true
		}
	}
	return nil
}

// checkDefs holds the definitions against the method, the key and the numbers.
func (c *clause) checkDefs(statement *ShardTable) *Error {
	if err := c.checkNames(statement.Defs); err != nil {
		return err
	}
	defaults := 0
	for i := range statement.Defs {
		def := &statement.Defs[i]
		if err := checkDef(statement, def); err != nil {
			return err
		}
		if def.Default {
			defaults++
		}
		if defaults > 1 {
			return &Error{Code: codeDuplicateObject, Message: "there is more than one DEFAULT partition", Position: def.Position}
		}
		if err := c.checkSubpartitions(statement, def); err != nil {
			return err
		}
	}
	if statement.Partitions != 0 && statement.Partitions != len(statement.Defs) {
		return c.failAt(c.partitionsToken, codeSyntax, fmt.Sprintf("PARTITIONS says %d but %d are defined", statement.Partitions, len(statement.Defs)), "Leave out PARTITIONS: the definitions are counted.")
	}
	statement.Partitions = len(statement.Defs)
	if statement.Subpartitions == 0 {
		statement.Subpartitions = len(statement.Defs[0].Subpartitions)
	}
	return nil
}

// checkDef checks the values of one partition.
func checkDef(statement *ShardTable, def *PartitionDef) *Error {
	fail := func(hint, format string, args ...any) *Error {
		return &Error{Code: codeSyntax, Message: fmt.Sprintf(format, args...), Hint: hint, Position: def.Position}
	}
	columns := len(statement.Key)
	switch statement.Method {
	case MethodHash:
		err := fail("Write PARTITIONS n. The partitions are dealt out to the shards in turn.", "the partitions of HASH cannot be defined one by one")
		err.Code = codeUnsupported
		return err
	case MethodRange:
		if def.LessThan == nil {
			return fail("Write PARTITION name VALUES LESS THAN (…).", "partition \"%s\" of RANGE has no upper bound", def.Name)
		}
		if len(def.LessThan) != columns {
			return fail("A bound has one value for each column of the key.", "the bound of partition \"%s\" has %d values, the key has %d", def.Name, len(def.LessThan), columns)
		}
	case MethodList:
		if def.In == nil && !def.Default {
			return fail("Write PARTITION name VALUES IN (…) or PARTITION name DEFAULT.", "partition \"%s\" of LIST has no values", def.Name)
		}
		for _, tuple := range def.In {
			if len(tuple) != columns {
				err := fail("With a key of several columns each value is written as (a, b).", "a value of partition \"%s\" has %d columns, the key has %d", def.Name, len(tuple), columns)
				err.Position = tuple[0].Position
				return err
			}
		}
	}
	return nil
}

// checkSubpartitions checks the named subpartitions of one partition.
func (c *clause) checkSubpartitions(statement *ShardTable, def *PartitionDef) *Error {
	count := len(def.Subpartitions)
	if count > 0 && statement.SubMethod == "" {
		return &Error{Code: codeSyntax, Message: fmt.Sprintf("partition \"%s\" has subpartitions but there is no SUBPARTITION BY", def.Name), Position: def.Subpartitions[0].Position}
	}
	if first := len(statement.Defs[0].Subpartitions); count != first {
		return &Error{Code: codeSyntax, Message: fmt.Sprintf("partition \"%s\" has %d named subpartitions, partition \"%s\" has %d", def.Name, count, statement.Defs[0].Name, first),
			Hint: "Name the subpartitions of all partitions or of none.", Position: def.Position}
	}
	if count > 0 && statement.Subpartitions != 0 && count != statement.Subpartitions {
		return c.failAt(c.subpartitionToken, codeSyntax, fmt.Sprintf("SUBPARTITIONS says %d but partition \"%s\" has %d", statement.Subpartitions, def.Name, count), "")
	}
	return nil
}
