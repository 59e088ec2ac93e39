package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// tailEdit is a place behind the rows of an INSERT, in ON CONFLICT or RETURNING, that differs in the texts for several
// shards. Places are ordinals of tokens, which are alike in all texts that a plan serves.
type tailEdit struct {
	// first and end enclose a clock in whose place a computed value stands; its precision, "(3)", begins at modifier,
	// which is end where there is none. With a name they are alike: the name goes in front of that token.
	first, modifier, end int
	name                 string
	typeSQL              string
	value                int // index in InsertData.Values
}

// clockTypes are the types of the clocks by their names in SQL.
var clockTypes = map[string]uint32{"date": 1082, "time": 1083, "timestamp": 1114, "timestamptz": 1184, "timetz": 1266}

// clocksOfTail has the clocks in ON CONFLICT and RETURNING computed, so that they are one value on all shards.
func (a *analysis) clocksOfTail(data *InsertData) *Error {
	i := a.insertion.stmt
	var parts []*node
	if c := i.OnConflictClause; c != nil {
		parts = append(parts, c.TargetList...)
		parts = append(parts, c.WhereClause)
	}
	parts = append(parts, i.ReturningList...)
	var tokens []lexer.Token
	for _, part := range parts {
		at := a.clockIn(part)
		if at < 0 {
			continue
		}
		if tokens == nil {
			tokens = tokensOf(a.sql)
		}
		if !a.clocksOfPart(data, tokens, part) {
			return refuse("Give the time as a parameter or as a constant.",
				"the time of the transaction in ON CONFLICT and RETURNING over several shards is not supported in this form: each shard would have a time of its own").
				at(a.position(at))
		}
	}
	slices.SortFunc(data.tail, func(x, y tailEdit) int { return x.first - y.first })
	return nil
}

// clocksOfPart is clocksOfTail for one assignment, condition or column; ok is false if a clock cannot be replaced.
func (a *analysis) clocksOfPart(data *InsertData, tokens []lexer.Token, part *node) bool {
	ok := true
	walk(part, func(m message) bool {
		switch m := m.(type) {
		case *sqlValueFunction:
			if name, precise := clockValue(m); name != "" {
				ok = ok && a.tailClock(data, tokens, int(m.Location), name, precise, false)
			}
		case *funcCall:
			info := a.function(m)
			switch {
			case info.user:
			case clocks[info.name] && len(m.Args) == 0:
				ok = ok && a.tailClock(data, tokens, int(m.Location), "timestamptz", false, true)
			case clocks[info.name] || info.name == "age" && len(m.Args) == 1:
				ok = false
			}
		}
		return ok
	})
	t := part.GetResTarget()
	if !ok || t == nil || t.Name != "" || !slices.Contains(a.insertion.stmt.ReturningList, part) {
		return ok
	}
	name := figureName(t.Val)
	start := tokenAt(tokens, int(t.Location))
	if name == unknownName || start < 0 {
		return false
	}
	end, depth := start, 0
	for ; end < len(tokens); end++ {
		token := tokens[end]
		switch {
		case token.IsPunct(a.sql, '('), token.IsPunct(a.sql, '['):
			depth++
		case token.IsPunct(a.sql, ')'), token.IsPunct(a.sql, ']'):
			depth--
		}
		if depth == 0 && (token.IsPunct(a.sql, ',') || token.IsPunct(a.sql, ';')) {
			break
		}
	}
	data.tail = append(data.tail, tailEdit{first: end, modifier: end, end: end, name: name})
	return true
}

// tailClock notes one clock.
func (a *analysis) tailClock(data *InsertData, tokens []lexer.Token, location int, name string, precise, called bool) bool {
	first := tokenAt(tokens, location)
	if first < 0 {
		return false
	}
	if slices.ContainsFunc(data.tail, func(e tailEdit) bool { return e.first == first && e.name == "" }) {
		return true // (a, b) = (now(), 1) holds the row for each of its columns
	}
	e := tailEdit{first: first, modifier: first + 1, end: first + 1, typeSQL: "pg_catalog." + name}
	if precise || called {
		for e.end < len(tokens) && !tokens[e.end-1].IsPunct(a.sql, ')') {
			if tokens[e.end].Kind == lexer.UnicodeIdent {
				return false
			}
			e.end++
		}
		if !precise {
			e.modifier = e.end
		}
	}
	in := a.insertion
	in.supplied = append(in.supplied, SuppliedColumn{Type: clockTypes[name], TypeSQL: e.typeSQL, place: -1})
	e.value = len(in.values)
	in.add(SuppliedValue{Row: -1, Column: len(in.supplied) - 1})
	data.tail = append(data.tail, e)
	return true
}

// tokensOf are the tokens of a text.
func tokensOf(sql string) []lexer.Token {
	lex := lexer.New(sql)
	var tokens []lexer.Token
	for {
		token, ok := lex.Next()
		if !ok {
			return tokens
		}
		tokens = append(tokens, token)
	}
}

// tokenAt is the ordinal of the token that starts at a place of the text, -1 if none does.
func tokenAt(tokens []lexer.Token, start int) int {
	i, ok := slices.BinarySearchFunc(tokens, start, func(t lexer.Token, at int) int { return t.Start - at })
	if !ok {
		return -1
	}
	return i
}

// writeTail writes what stands behind the rows, with its computed values.
func (d *InsertData) writeTail(w *textWriter, l *insertLayout, tokens []lexer.Token) {
	at := l.tail
	for _, e := range d.tail {
		start := endOf(tokens, e.first-1)
		if e.name != "" {
			w.copy(at, start)
			w.own(" AS " + directory.QuoteIdentifier(e.name))
			at = start
			continue
		}
		w.copy(at, tokens[e.first].Start)
		if e.modifier < e.end {
			w.own("CAST(")
		}
		w.computed(e.value, d.Supplied[d.Values[e.value].Column].Type)
		if e.modifier < e.end {
			w.own(" AS " + e.typeSQL)
			w.copy(tokens[e.modifier].Start, endOf(tokens, e.end-1))
			w.own(")")
		}
		at = endOf(tokens, e.end-1)
	}
	w.copy(at, len(l.sql))
}

func endOf(tokens []lexer.Token, i int) int { return tokens[i].End }

// clockText is the client's text of the clock that a value is of.
func (d *InsertData) clockText(l *insertLayout, value int) span {
	tokens := tokensOf(l.sql)
	i := slices.IndexFunc(d.tail, func(e tailEdit) bool { return e.name == "" && e.value == value })
	return span{tokens[d.tail[i].first].Start, endOf(tokens, d.tail[i].end-1)}
}
