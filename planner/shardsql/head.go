package shardsql

import (
	"strings"
)

// maxPartitions bounds what one statement can ask for: partitions times subpartitions.
const maxPartitions = 100_000

const methodsHint = "Expected RANGE, LIST, HASH or DIRECTORY, and columns in parentheses."

// shardTableBy parses what follows SHARD TABLE t BY.
func (p *parser) shardTableBy(table Name) (Statement, *Error) {
	if p.words("directory") {
		return p.directoryTable(table)
	}
	statement := &ShardTable{Table: table}
	begin := p.next
	method, key, err := p.method()
	if err != nil {
		return nil, err
	}
	statement.Method, statement.Key = method, key
	end := p.endOfClause()
	rest := p.next
	p.next = end
	if statement.Colocate, statement.UniqueLocal, err = p.options(); err != nil {
		return nil, err
	}
	p.next = rest
	clause := clause{parser: p, begin: begin, end: end}
	if err := clause.parse(statement); err != nil {
		return nil, err
	}
	return statement, nil
}

// method takes RANGE (…), LIST (…) or HASH (…).
func (p *parser) method() (Method, []Column, *Error) {
	var method Method
	switch {
	case p.words("range"):
		method = MethodRange
	case p.words("list"):
		method = MethodList
	case p.words("hash"):
		method = MethodHash
	default:
		for _, word := range []string{"key", "linear", "system_time"} {
			if p.isWord(p.next, word) {
				return "", nil, p.failAt(p.next, codeUnsupported, strings.ToUpper(word)+" is not supported as a sharding method", methodsHint)
			}
		}
		return "", nil, p.syntaxError(p.next, methodsHint)
	}
	if method != MethodHash && (p.isWord(p.next, "columns") || p.isWord(p.next, "fields")) {
		return "", nil, p.syntaxError(p.next, "Leave the word out: "+strings.ToUpper(string(method))+" takes one or more columns.")
	}
	key, err := p.columns("columns of the sharding key")
	return method, key, err
}

// endOfClause returns the index of the first token behind the partition clause:
// COLOCATE or UNIQUE outside of parentheses, or the end.
func (p *parser) endOfClause() int {
	depth := 0
	for i := p.next; i < len(p.tokens); i++ {
		switch {
		case p.isPunct(i, '('):
			depth++
		case p.isPunct(i, ')'):
			depth--
		case depth == 0 && (p.isWord(i, "colocate") || p.isWord(i, "unique")):
			return i
		}
	}
	return len(p.tokens)
}

// options takes COLOCATE WITH t and UNIQUE LOCAL, in any order, to the end.
func (p *parser) options() (colocate *Name, uniqueLocal bool, err *Error) {
	for p.next < len(p.tokens) {
		at := p.next
		switch {
		case p.words("colocate"):
			if err := p.expectWords("with"); err != nil {
				return nil, false, err
			}
			if colocate != nil {
				return nil, false, p.failAt(at, codeSyntax, "conflicting or redundant options", "")
			}
			table, err := p.tableName("the name of a table")
			if err != nil {
				return nil, false, err
			}
			colocate = &table
		case p.words("unique"):
			if err := p.expectWords("local"); err != nil {
				return nil, false, err
			}
			if uniqueLocal {
				return nil, false, p.failAt(at, codeSyntax, "conflicting or redundant options", "")
			}
			uniqueLocal = true
		default:
			return nil, false, p.expectEnd("Expected COLOCATE WITH table or UNIQUE LOCAL.")
		}
	}
	return colocate, uniqueLocal, nil
}

// alterShardTable parses what follows ALTER SHARD TABLE.
func (p *parser) alterShardTable() (Statement, *Error) {
	table, err := p.tableName("the name of a table")
	if err != nil {
		return nil, err
	}
	statement := &AlterShardTable{Table: table}
	clause := clause{parser: p, begin: p.next, end: len(p.tokens)}
	switch {
	case p.isWord(p.next, "partition"):
		return statement, clause.placement(statement)
	case p.isWord(p.next, "reorganize"):
		return statement, clause.reorganize(statement)
	case p.words("assign"):
		return p.assignEntries(table)
	}
	for _, word := range []string{"add", "drop", "truncate", "coalesce", "exchange", "rename", "remove", "split", "merge", "first", "last", "rebuild", "analyze", "check", "optimize", "repair"} {
		if p.isWord(p.next, word) {
			return nil, p.failAt(p.next, codeUnsupported, "ALTER SHARD TABLE … "+strings.ToUpper(word)+" is not supported",
				"REORGANIZE PARTITION p, … INTO (…) splits and merges partitions.")
		}
	}
	return nil, p.syntaxError(p.next, "Expected PARTITION p PLACEMENT POLICY = shard, REORGANIZE PARTITION p, … INTO (…), or ASSIGN (value, …) TO shard.")
}
