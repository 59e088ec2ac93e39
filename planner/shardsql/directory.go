package shardsql

import (
	"strconv"

	"github.com/shardyard/shardyard/planner/lexer"
)

const (
	// maxAssigned bounds the keys of one ALTER SHARD TABLE … ASSIGN.
	maxAssigned = 100
	// DefaultEntries is how many entries SHOW ENTRIES shows without LIMIT.
	DefaultEntries = 1000
	// maxEntries bounds LIMIT.
	maxEntries = 100_000
)

// directoryTable parses what follows SHARD TABLE t BY DIRECTORY.
func (p *parser) directoryTable(table Name) (Statement, *Error) {
	key, err := p.columns("columns of the sharding key")
	if err != nil {
		return nil, err
	}
	statement := &DirectoryTable{Table: table, Key: key}
	if at := p.next; p.words("assign") {
		statement.AssignPosition = p.positionOf(at)
		switch {
		case p.words("round", "robin"):
			statement.Assign = AssignRoundRobin
		case p.words("least", "loaded"):
			statement.Assign = AssignLeastLoaded
		case p.words("hash"):
			statement.Assign = AssignHash
		case p.words("none"):
			statement.Assign = AssignNone
		default:
			return nil, p.syntaxError(p.next, "Expected ROUND ROBIN, LEAST LOADED, HASH or NONE.")
		}
	}
	if p.words("on") {
		if !p.isPunct(p.next, '(') {
			return nil, p.syntaxError(p.next, "Expected names of shards in parentheses.")
		}
		if statement.Shards, err = p.columns("names of shards"); err != nil {
			if err.Code == codeDuplicateColumn {
				err.Code, err.Message = codeDuplicateObject, "a shard is named more than once"
			}
			return nil, err
		}
	}
	at := p.next
	statement.Colocate, statement.UniqueLocal, err = p.options()
	if err == nil && statement.Colocate != nil && (statement.AssignPosition > 0 || statement.Shards != nil) {
		return nil, p.failAt(at, codeSyntax, "COLOCATE WITH takes the entries of the other table", "Leave out ASSIGN and ON: they are the other table's.")
	}
	return statement, err
}

// assignEntries parses what follows ALTER SHARD TABLE t ASSIGN.
func (p *parser) assignEntries(table Name) (Statement, *Error) {
	statement := &AssignEntries{Table: table}
	for {
		if len(statement.Keys) == maxAssigned {
			return nil, p.failAt(p.next, codeInvalidValue, "more than "+strconv.Itoa(maxAssigned)+" keys in one statement", "Use several statements.")
		}
		key, err := p.keyValues("Expected ASSIGN (value, …), … TO shard.")
		if err != nil {
			return nil, err
		}
		statement.Keys = append(statement.Keys, key)
		if !p.isPunct(p.next, ',') {
			break
		}
		p.next++
	}
	if err := p.expectWords("to"); err != nil {
		return nil, err
	}
	shard, at, err := p.identifier("the name of a shard")
	if err != nil {
		return nil, err
	}
	statement.Shard, statement.ShardPosition = shard, p.positionOf(at)
	return statement, p.expectEnd("")
}

// showEntries parses what follows SHOW ENTRIES.
func (p *parser) showEntries() (Statement, *Error) {
	if err := p.expectWords("from"); err != nil {
		return nil, err
	}
	table, err := p.tableName("the name of a table")
	if err != nil {
		return nil, err
	}
	statement := &ShowEntries{Table: table, Limit: DefaultEntries}
	switch {
	case p.words("for"):
		if statement.For, err = p.keyValues("Expected FOR (value, …)."); err != nil {
			return nil, err
		}
		return statement, p.expectEnd("")
	case p.words("after"):
		if statement.After, err = p.keyValues("Expected AFTER (value, …)."); err != nil {
			return nil, err
		}
	}
	if p.words("limit") {
		i := p.next
		if i >= len(p.tokens) || p.tokens[i].Kind != lexer.Int {
			return nil, p.syntaxError(i, "Expected a whole number.")
		}
		n, err := strconv.Atoi(numberText(p.text(i)))
		if err != nil || n < 1 || n > maxEntries {
			return nil, p.failAt(i, codeInvalidValue, "LIMIT must be between 1 and "+strconv.Itoa(maxEntries),
				"AFTER (key) goes on behind a key; shardyard map export writes all entries.")
		}
		statement.Limit = n
		p.next++
	}
	return statement, p.expectEnd("Expected FOR (value, …), AFTER (value, …) or LIMIT n.")
}

// keyValues takes the values of one key, in parentheses.
func (p *parser) keyValues(hint string) ([]Literal, *Error) {
	if !p.isPunct(p.next, '(') {
		return nil, p.syntaxError(p.next, hint)
	}
	p.next++
	var values []Literal
	for {
		value, err := p.keyValue()
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		switch {
		case p.isPunct(p.next, ','):
			p.next++
		case p.isPunct(p.next, ')'):
			p.next++
			return values, nil
		default:
			return nil, p.syntaxError(p.next, "")
		}
	}
}

// keyValue takes one literal.
func (p *parser) keyValue() (Literal, *Error) {
	i := p.next
	if i >= len(p.tokens) {
		return Literal{}, p.syntaxError(i, "")
	}
	value := Literal{Position: p.positionOf(i)}
	sign := ""
	if p.isPunct(i, '-') || p.isPunct(i, '+') {
		if p.isPunct(i, '-') {
			sign = "-"
		}
		i++
		if i >= len(p.tokens) || p.tokens[i].Kind != lexer.Int && p.tokens[i].Kind != lexer.Float {
			return Literal{}, p.syntaxError(i, "Expected a number.")
		}
	}
	switch p.tokens[i].Kind {
	case lexer.String:
		value.Kind, value.Text = LiteralString, lexer.StringText(p.text(i))
	case lexer.Int, lexer.Float:
		value.Kind, value.Text = LiteralNumber, sign+numberText(p.text(i))
	case lexer.Ident:
		word, _ := lexer.IdentValue(p.sql, p.tokens[i])
		switch word {
		case "true", "false":
			value.Kind, value.Text = LiteralBool, word
		case "null":
			value.Kind = LiteralNull
		default:
			return Literal{}, p.failAt(i, codeUnsupported, "the values of a key must be literals", literalHint)
		}
	case lexer.Punct:
		return Literal{}, p.syntaxError(i, literalHint)
	default:
		return Literal{}, p.failAt(i, codeUnsupported, "the values of a key must be plain literals",
			"Write numbers, 'strings', TRUE, FALSE and NULL.")
	}
	p.next = i + 1
	return value, nil
}
