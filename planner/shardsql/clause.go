package shardsql

import (
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/planner/lexer"
)

// clause is the part of a statement that TiDB's parser reads: the tokens begin
// to end. It is rewritten to MySQL's dialect token by token, one a line, so
// that the line of an error tells the token.
type clause struct {
	*parser
	begin, end int

	out   strings.Builder
	lines []int // the token on each line behind the first

	definitions       int // byte of out where the list of partitions begins; 0 if there is none
	definitionsLine   int // its index in lines
	partitions        int // PARTITIONS n; 0 when not given
	partitionsToken   int
	subpartitions     int // SUBPARTITIONS n; 0 when not given
	subpartitionToken int
	subKey            []Column // SUBPARTITION BY HASH (…)
}

// emit adds one line that stands for token i.
func (c *clause) emit(i int, text string) {
	c.out.WriteByte('\n')
	c.out.WriteString(text)
	c.lines = append(c.lines, i)
}

// vocabulary holds the words that are passed on to TiDB's parser. Any other
// word is a name, where the grammar has one, or an error.
var vocabulary = map[string]bool{
	"partition": true, "partitions": true, "subpartition": true, "subpartitions": true, "by": true, "values": true, "less": true,
	"than": true, "in": true, "maxvalue": true, "default": true, "placement": true, "policy": true, "reorganize": true, "into": true,
}

// The letters of the placeholders for names and literals. The number of the
// token follows.
const (
	markName     = 'i'
	markString   = 's'
	markNumber   = 'n'
	markNull     = 'u'
	markBool     = 'b'
	markMaxValue = 'm'
)

func mark(letter byte, i int) string { return string(letter) + strconv.Itoa(i) }

// rewrite emits the tokens from the next one to the clause's end.
func (c *clause) rewrite() *Error {
	for c.next < c.end {
		i := c.next
		c.next++
		tok := c.tokens[i]
		switch tok.Kind {
		case lexer.Ident:
			if err := c.word(i); err != nil {
				return err
			}
		case lexer.Punct:
			if strings.IndexByte("(),", c.sql[tok.Start]) < 0 {
				return c.syntaxError(i, "")
			}
			if c.definitions == 0 && c.isPunct(i, '(') {
				c.definitions, c.definitionsLine = c.out.Len(), len(c.lines)
			}
			c.emit(i, c.text(i))
		default:
			// Names, numbers and strings are taken by the word in front of them.
			return c.syntaxError(i, "")
		}
	}
	return nil
}

// word emits a word of the grammar together with what must follow it.
func (c *clause) word(i int) *Error {
	word, _ := lexer.IdentValue(c.sql, c.tokens[i])
	if !vocabulary[word] {
		if unsupportedOptions[word] {
			return c.failAt(i, codeUnsupported, "partition option "+strings.ToUpper(word)+" is not supported", "The only option of a partition is PLACEMENT POLICY = shard.")
		}
		return c.syntaxError(i, "")
	}
	c.emit(i, strings.ToUpper(word))
	switch word {
	case "values":
		if !c.isWord(c.next, "less") && !c.isWord(c.next, "in") {
			return c.syntaxError(c.next, "Expected LESS THAN (…) or IN (…).")
		}
	case "less":
		if !c.isWord(c.next, "than") {
			return c.syntaxError(c.next, "Expected THAN.")
		}
	case "partition":
		return c.names("the name of a partition")
	case "subpartition":
		if c.isWord(c.next, "by") {
			c.emit(c.next, "BY")
			c.next++
			return c.subpartitionMethod()
		}
		return c.names("the name of a subpartition")
	case "partitions":
		c.partitionsToken = c.next
		return c.count(&c.partitions)
	case "subpartitions":
		c.subpartitionToken = c.next
		return c.count(&c.subpartitions)
	case "policy":
		return c.policy()
	case "than", "in":
		return c.bounds()
	}
	return nil
}

// unsupportedOptions are options of partitions that TiDB's grammar has.
var unsupportedOptions = map[string]bool{
	"engine": true, "storage": true, "comment": true, "data": true, "index": true, "max_rows": true, "min_rows": true, "tablespace": true,
	"nodegroup": true, "engine_attribute": true, "secondary_engine_attribute": true, "insert_method": true, "interval": true, "algorithm": true,
	"history": true, "current": true, "update": true,
}

// names emits one name, or several divided by commas if INTO may follow.
func (c *clause) names(what string) *Error {
	for {
		_, at, err := c.identifier(what)
		if err != nil {
			return err
		}
		c.emit(at, `"`+mark(markName, at)+`"`)
		if !c.isPunct(c.next, ',') || !c.isWord(c.begin, "reorganize") || c.definitions > 0 {
			return nil
		}
		c.emit(c.next, ",")
		c.next++
	}
}

// subpartitionMethod emits what follows SUBPARTITION BY.
func (c *clause) subpartitionMethod() *Error {
	at := c.next
	method, key, err := c.method()
	if err != nil {
		return err
	}
	c.subKey = key
	if method != MethodHash {
		return c.failAt(at, codeUnsupported, "SUBPARTITION BY "+strings.ToUpper(string(method))+" is not supported", "Subpartitions are by HASH.")
	}
	c.emit(at, "HASH (\"k\")")
	return nil
}

// count emits the number behind PARTITIONS or SUBPARTITIONS.
func (c *clause) count(count *int) *Error {
	i := c.next
	if i >= c.end || c.tokens[i].Kind != lexer.Int {
		return c.syntaxError(i, "Expected a whole number.")
	}
	c.next++
	n, err := strconv.Atoi(numberText(c.text(i)))
	if err != nil || n < 1 || n > maxPartitions {
		return c.failAt(i, codeInvalidValue, "the number of partitions must be between 1 and "+strconv.Itoa(maxPartitions), "")
	}
	*count = n
	c.emit(i, strconv.Itoa(n))
	return nil
}

// policy emits the shard behind PLACEMENT POLICY.
func (c *clause) policy() *Error {
	if c.isPunct(c.next, '=') {
		c.emit(c.next, "=")
		c.next++
	}
	_, at, err := c.identifier("the name of a shard")
	if err != nil {
		return err
	}
	c.emit(at, `"`+mark(markName, at)+`"`)
	return nil
}

// bounds emits MAXVALUE or the parenthesised literals behind THAN or IN.
func (c *clause) bounds() *Error {
	if c.isWord(c.next, "maxvalue") {
		c.emit(c.next, "('"+mark(markMaxValue, c.next)+"')")
		c.next++
		return nil
	}
	if !c.isPunct(c.next, '(') {
		return c.syntaxError(c.next, "Expected values in parentheses.")
	}
	depth := 0
	for c.next < c.end {
		i := c.next
		c.next++
		switch {
		case c.isPunct(i, '('):
			depth++
			c.emit(i, "(")
		case c.isPunct(i, ')'):
			depth--
			c.emit(i, ")")
			if depth == 0 {
				return nil
			}
		case c.isPunct(i, ','):
			c.emit(i, ",")
		default:
			text, err := c.literal(i)
			if err != nil {
				return err
			}
			if !c.isPunct(i-1, '(') && !c.isPunct(i-1, ',') && !c.isPunct(i-1, '-') && !c.isPunct(i-1, '+') {
				return c.syntaxError(i, "") // MySQL would join 'a' 'b'
			}
			c.emit(i, text)
		}
	}
	return c.syntaxError(c.end, "")
}

const literalHint = "Write plain literals; they are read as values of the key's columns."

// literal returns what stands for the token inside of bounds.
func (c *clause) literal(i int) (string, *Error) {
	tok := c.tokens[i]
	switch tok.Kind {
	case lexer.String:
		return "'" + mark(markString, i) + "'", nil
	case lexer.Int, lexer.Float:
		return "'" + mark(markNumber, i) + "'", nil
	case lexer.Ident:
		switch word, _ := lexer.IdentValue(c.sql, tok); word {
		case "default":
			if !c.isPunct(i-1, '(') || !c.isPunct(i+1, ')') {
				return "", c.failAt(i, codeUnsupported, "DEFAULT must stand alone in a partition", "Write PARTITION name DEFAULT.")
			}
			return "DEFAULT", nil
		case "maxvalue":
			return "'" + mark(markMaxValue, i) + "'", nil
		case "null":
			return "'" + mark(markNull, i) + "'", nil
		case "true", "false":
			return "'" + mark(markBool, i) + "'", nil
		case "minvalue":
			return "", c.failAt(i, codeUnsupported, "MINVALUE is not supported", "The first partition begins at the lowest value.")
		}
		return "", c.failAt(i, codeUnsupported, "partition bounds must be literals", literalHint)
	case lexer.Punct:
		if text := c.text(i); text == "-" || text == "+" {
			opens := c.isPunct(i-1, '(') || c.isPunct(i-1, ',')
			number := i+1 < c.end && (c.tokens[i+1].Kind == lexer.Int || c.tokens[i+1].Kind == lexer.Float)
			if opens && number {
				return text, nil
			}
		}
		return "", c.failAt(i, codeUnsupported, "partition bounds must be literals", literalHint)
	case lexer.EscapeString, lexer.UnicodeString, lexer.DollarString, lexer.BitString, lexer.HexString, lexer.NationalPrefix:
		return "", c.failAt(i, codeUnsupported, "only plain string constants are supported in partition bounds", "Write 'text'; a quote in it is doubled, a backslash stands for itself.")
	case lexer.Param:
		return "", c.failAt(i, codeUnsupported, "parameters are not supported in sharding statements", literalHint)
	case lexer.QuotedIdent, lexer.UnicodeIdent:
		return "", c.failAt(i, codeUnsupported, "partition bounds must be literals", "Strings are written in single quotes.")
	}
	return "", c.failAt(i, codeUnsupported, "partition bounds must be literals", literalHint)
}
