package shardsql

import (
	"strings"

	"github.com/shardyard/shardyard/planner/lexer"
)

// Recognise reports, from its first words, whether sql is a sharding statement,
// well-formed or not. No statement of Postgres begins with SHARD, UNSHARD or
// ALTER SHARD; SHOW SHARDS, TABLES, PARTITIONS, ENTRIES and TRANSACTIONS would be
// settings that it does not have. It does not allocate.
func Recognise(sql string) bool {
	l := lexer.New(sql)
	first, _ := l.Next()
	switch {
	case first.IsWord(sql, "shard"), first.IsWord(sql, "unshard"):
		return true
	case first.IsWord(sql, "alter"):
		second, _ := l.Next()
		return second.IsWord(sql, "shard")
	case first.IsWord(sql, "show"):
		second, _ := l.Next()
		if !second.IsWord(sql, "shards") && !second.IsWord(sql, "tables") && !second.IsWord(sql, "partitions") &&
			!second.IsWord(sql, "transactions") && !second.IsWord(sql, "entries") {
			return false
		}
		third, _ := l.Next()
		return !third.IsPunct(sql, '.') // SHOW tables.x: a setting of an extension
	}
	return false
}

// Parse parses one sharding statement, with or without a semicolon at its end.
// Its errors are *Error.
func Parse(sql string) (Statement, error) {
	p := &parser{sql: sql}
	if err := p.tokenise(); err != nil {
		return nil, err
	}
	statement, err := p.statement()
	if err != nil {
		return nil, err
	}
	return statement, nil
}

// parser walks over the tokens of one statement.
type parser struct {
	sql    string
	tokens []lexer.Token
	next   int // index of the next token
}

// tokenise fills p.tokens, without comments and without semicolons at the end.
func (p *parser) tokenise() *Error {
	l := lexer.NewWithComments(p.sql)
	for {
		tok, ok := l.Next()
		if !ok {
			break
		}
		switch tok.Kind {
		case lexer.LineComment:
		case lexer.BlockComment:
			// MySQL runs what stands in these; Postgres ignores it. Neither is what the user can rely on here.
			if text := tok.Text(p.sql); strings.HasPrefix(text, "/*!") || strings.HasPrefix(text, "/*T!") {
				return &Error{Code: codeUnsupported, Message: "executable comments are not supported in sharding statements",
					Hint: "Write the clause without the comment, or use a plain /* comment */.", Position: position(p.sql, tok.Start)}
			}
		default:
			p.tokens = append(p.tokens, tok)
		}
	}
	if err := l.Err(); err != nil {
		return lexicalError(p.sql, err)
	}
	for len(p.tokens) > 0 && p.tokens[len(p.tokens)-1].IsPunct(p.sql, ';') {
		p.tokens = p.tokens[:len(p.tokens)-1]
	}
	return nil
}

func (p *parser) text(i int) string { return p.tokens[i].Text(p.sql) }

// positionOf returns the 1-based character of token i, or of the end of the text.
func (p *parser) positionOf(i int) int {
	if i < len(p.tokens) {
		return position(p.sql, p.tokens[i].Start)
	}
	return position(p.sql, len(p.sql))
}

// isWord reports whether token i is the unquoted word, given in lower case.
func (p *parser) isWord(i int, word string) bool {
	return i < len(p.tokens) && p.tokens[i].IsWord(p.sql, word)
}

func (p *parser) isPunct(i int, c byte) bool {
	return i < len(p.tokens) && p.tokens[i].IsPunct(p.sql, c)
}

// words takes the next tokens if they are these words, all or none.
func (p *parser) words(words ...string) bool {
	for i, word := range words {
		if !p.isWord(p.next+i, word) {
			return false
		}
	}
	p.next += len(words)
	return true
}

// expectWords takes the next tokens, which must be these words.
func (p *parser) expectWords(words ...string) *Error {
	for _, word := range words {
		if !p.words(word) {
			return p.syntaxError(p.next, "Expected "+strings.ToUpper(strings.Join(words, " "))+".")
		}
	}
	return nil
}

func (p *parser) expectPunct(c byte) *Error {
	if !p.isPunct(p.next, c) {
		return p.syntaxError(p.next, "")
	}
	p.next++
	return nil
}

// expectEnd fails if tokens are left.
func (p *parser) expectEnd(hint string) *Error {
	if p.next == len(p.tokens) {
		return nil
	}
	if p.isPunct(p.next, ';') {
		hint = "A sharding statement must be sent on its own."
	}
	return p.syntaxError(p.next, hint)
}

// identifier takes an identifier; what names it in the error.
func (p *parser) identifier(what string) (name string, at int, err *Error) {
	at = p.next
	if at < len(p.tokens) {
		if p.tokens[at].Kind == lexer.UnicodeIdent {
			return "", at, p.failAt(at, codeUnsupported, "identifiers with Unicode escapes are not supported in sharding statements",
				"Write the name in double quotes without escapes.")
		}
		if name, ok := lexer.IdentValue(p.sql, p.tokens[at]); ok && !p.isReserved(at) {
			p.next++
			return name, at, nil
		}
	}
	return "", at, p.syntaxError(at, "Expected "+what+".")
}

// isReserved reports whether token i is one of the words that cannot be a name
// here without quotes, because a forgotten name would then be filled by it.
func (p *parser) isReserved(i int) bool {
	for _, word := range []string{"by", "as", "on", "default", "values", "into", "in", "from", "with", "null", "select", "table", "where"} {
		if p.isWord(i, word) {
			return true
		}
	}
	return false
}

// tableName takes a name that may have a schema.
func (p *parser) tableName(what string) (Name, *Error) {
	first, at, err := p.identifier(what)
	if err != nil {
		return Name{}, err
	}
	name := Name{Name: first, Position: p.positionOf(at)}
	if !p.isPunct(p.next, '.') {
		return name, nil
	}
	p.next++
	second, _, err := p.identifier(what)
	if err != nil {
		return Name{}, err
	}
	if p.isPunct(p.next, '.') {
		return Name{}, p.failAt(at, codeUnsupported, "cross-database references are not implemented", "Write schema.table.")
	}
	name.Schema, name.Name = first, second
	return name, nil
}

// columns takes a parenthesised list of names without duplicates.
func (p *parser) columns(what string) ([]Column, *Error) {
	if err := p.expectPunct('('); err != nil {
		err.Hint = "Expected " + what + " in parentheses."
		return nil, err
	}
	var columns []Column
	seen := make(map[string]bool)
	for {
		if p.next < len(p.tokens) {
			if p.text(p.next)[0] == '`' {
				return nil, p.syntaxError(p.next, "Names are quoted with double quotes.")
			}
			if kind := p.tokens[p.next].Kind; kind != lexer.Ident && kind != lexer.QuotedIdent && kind != lexer.UnicodeIdent && !p.isPunct(p.next, ')') && !p.isPunct(p.next, ',') {
				return nil, p.failAt(p.next, codeUnsupported, "expressions are not supported as "+what, "Name columns. A generated column can stand for an expression.")
			}
		}
		name, at, err := p.identifier(what)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, p.failAt(at, codeDuplicateColumn, `column "`+name+`" appears more than once`, "")
		}
		seen[name] = true
		columns = append(columns, Column{Name: name, Position: p.positionOf(at)})
		switch {
		case p.isPunct(p.next, ','):
			p.next++
		case p.isPunct(p.next, ')'):
			p.next++
			return columns, nil
		case p.next == len(p.tokens):
			return nil, p.syntaxError(p.next, "")
		case p.isPunct(p.next, '.'):
			return nil, p.failAt(at, codeUnsupported, "a column of the key must be named without its table", "Write the bare name of the column.")
		default:
			return nil, p.failAt(p.next, codeUnsupported, "expressions are not supported as "+what, "Name columns. A generated column can stand for an expression.")
		}
	}
}

// statement parses the whole statement.
func (p *parser) statement() (Statement, *Error) {
	switch {
	case p.words("shard", "table"):
		return p.shardTable()
	case p.words("shard", "function"):
		return p.shardFunction()
	case p.words("shard"):
		return nil, p.syntaxError(p.next, "Expected TABLE or FUNCTION.")
	case p.words("alter", "shard"):
		if err := p.expectWords("table"); err != nil {
			return nil, err
		}
		return p.alterShardTable()
	case p.words("unshard"):
		if err := p.expectWords("table"); err != nil {
			return nil, err
		}
		table, err := p.tableName("the name of a table")
		if err != nil {
			return nil, err
		}
		return &UnshardTable{Table: table}, p.expectEnd("")
	case p.words("show", "shards"):
		return &ShowShards{}, p.expectEnd("")
	case p.words("show", "tables"):
		return &ShowTables{}, p.expectEnd("")
	case p.words("show", "transactions"):
		return &ShowTransactions{}, p.expectEnd("")
	case p.words("show", "partitions"):
		if err := p.expectWords("from"); err != nil {
			return nil, err
		}
		table, err := p.tableName("the name of a table")
		if err != nil {
			return nil, err
		}
		return &ShowPartitions{Table: table}, p.expectEnd("")
	case p.words("show", "entries"):
		return p.showEntries()
	}
	return nil, p.syntaxError(0, "Expected a sharding statement.")
}

// shardTable parses what follows SHARD TABLE.
func (p *parser) shardTable() (Statement, *Error) {
	table, err := p.tableName("the name of a table")
	if err != nil {
		return nil, err
	}
	switch {
	case p.words("by"):
		return p.shardTableBy(table)
	case p.words("as"):
		if err := p.expectWords("reference"); err != nil {
			return nil, err
		}
		return &ReferenceTable{Table: table}, p.expectEnd("")
	case p.words("on"):
		shard, at, err := p.identifier("the name of a shard")
		if err != nil {
			return nil, err
		}
		return &PinTable{Table: table, Shard: shard, ShardPosition: p.positionOf(at)}, p.expectEnd("")
	}
	return nil, p.syntaxError(p.next, "Expected BY method (columns), AS REFERENCE or ON shard.")
}

// shardFunction parses what follows SHARD FUNCTION.
func (p *parser) shardFunction() (Statement, *Error) {
	function, err := p.tableName("the name of a function")
	if err != nil {
		return nil, err
	}
	if err := p.expectWords("by"); err != nil {
		return nil, err
	}
	arguments, err := p.columns("arguments of the function")
	if err != nil {
		return nil, err
	}
	if err := p.expectWords("colocate", "with"); err != nil {
		return nil, err
	}
	table, err := p.tableName("the name of a table")
	if err != nil {
		return nil, err
	}
	return &ShardFunction{Function: function, Arguments: arguments, Colocate: table}, p.expectEnd("")
}
