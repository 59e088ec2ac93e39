package planner

import (
	"errors"
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/planner/lexer"
)

// Clock says which parameters of Plan.SQL, behind the client's own, stand for the time that now() and its kin give: one
// value for the statement on all its shards, and one for the transaction. They are of type timestamptz. 0: none.
type Clock struct {
	Transaction int // now(), transaction_timestamp(), CURRENT_TIMESTAMP, CURRENT_DATE and so on
	Statement   int // statement_timestamp()
}

// Count is the number of parameters.
func (c *Clock) Count() int {
	n := 0
	if c != nil && c.Transaction > 0 {
		n++
	}
	if c != nil && c.Statement > 0 {
		n++
	}
	return n
}

var errUnnamed = errors.New("a result column's name would change")

// clockParameters numbers the parameters for the clocks that the statement reads.
func (a *analysis) clockParameters() *Clock {
	u := &a.functions
	if !u.now && !u.statementTime {
		return nil
	}
	next := len(a.types)
	for number := range a.params {
		next = max(next, number)
	}
	c := &Clock{}
	if u.now {
		next++
		c.Transaction = next
	}
	if u.statementTime {
		next++
		c.Statement = next
	}
	return c
}

// fixTime replaces every clock in a statement by its parameter. Result columns keep their names.
func (a *analysis) fixTime(m message, c *Clock) error {
	var failed error
	if u, ok := m.(*updateStmt); ok {
		a.fixDefaults(u.TargetList)
	}
	if merge, ok := m.(*mergeStmt); ok {
		a.fixMerge(merge)
	}
	eachNode(m, func(n *node) bool {
		if t := n.GetResTarget(); t != nil && t.Name == "" && t.Val != nil && a.holdsClock(unwrap(t.Val)) {
			if t.Name = figureName(t.Val); t.Name == unknownName {
				failed = errUnnamed
			}
		}
		if fixed := a.fixedTime(unwrap(n), c); fixed != nil {
			n.Node = fixed.Node
			return false
		}
		return true
	})
	return failed
}

// fixDefaults writes, in a list of SET, the defaults that read the time in place of DEFAULT.
func (a *analysis) fixDefaults(targets []*node) {
	for _, n := range targets {
		t := n.GetResTarget()
		if expression := a.timeDefaults[t.GetName()]; expression != nil && t.Val.GetSetToDefault() != nil {
			t.Val = cloneNode(expression)
		}
	}
}

func (a *analysis) holdsClock(m message) bool {
	found := false
	walk(m, func(inner message) bool {
		found = found || a.fixedTime(inner, &Clock{Transaction: 1, Statement: 1}) != nil
		return !found
	})
	return found
}

// fixedTime is what stands in place of a clock; nil for anything else.
func (a *analysis) fixedTime(m message, c *Clock) *node {
	switch m := m.(type) {
	case *funcCall:
		info := a.function(m)
		switch {
		case !clocks[info.name] || info.user || len(m.Args) > 0:
			return nil
		case info.name == "statement_timestamp":
			return castNode(paramNode(c.Statement), "timestamptz")
		}
		return castNode(paramNode(c.Transaction), "timestamptz")
	case *sqlValueFunction:
		name, precise := clockValue(m)
		if name == "" {
			return nil
		}
		n := castNode(paramNode(c.Transaction), "timestamptz")
		if precise {
			return castPrecise(n, name, int64(m.Typmod))
		}
		if name == "timestamptz" {
			return n
		}
		return castNode(n, name)
	}
	return nil
}

// noTime notes that a string literal is not read as a date or time, so that 'now' in it means nothing.
func (a *analysis) noTime(c *constant) {
	if ordinal, _, ok := a.findLiteral(int(c.Location)); ok && !slices.Contains(a.texts, ordinal) {
		a.texts = append(a.texts, ordinal)
	}
}

// noTimes notes the literals among the values of SET that are for columns of other types than dates and times.
func (a *analysis) noTimes(r *reference, targets []*node) {
	if r.relation == nil {
		return
	}
	for _, n := range targets {
		t := n.GetResTarget()
		k := t.GetVal().GetAConst()
		if k == nil || len(t.Indirection) > 0 {
			continue
		}
		if c, ok := r.relation.Column(t.Name); ok && !mayHoldTime(a.env.Catalog.BaseType(c.Type)) {
			a.noTime(k)
		}
	}
}

// mayHoldTime reports whether values of a type are, or may have in them, dates or times: those types themselves, their
// arrays and ranges, and every type that we do not know.
func mayHoldTime(oid uint32) bool {
	const firstUserType = 16384
	switch oid {
	case 0, 705, 2249, 2287, // unknown, record, record[]
		1082, 1083, 1114, 1184, 1266, 1182, 1183, 1115, 1185, 1270,
		3908, 3909, 3910, 3911, 3912, 3913, 4533, 4534, 4535, 6152, 6153, 6155:
		return true
	}
	return oid >= firstUserType
}

// InlineClock puts the values of the clocks, as literals, where their parameters are in a text.
func (c *Clock) InlineClock(sql, transaction, statement string) string {
	return inlined(sql, map[int]string{c.Transaction: transaction, c.Statement: statement})
}

// inlined puts values, as literals, where their parameters are in a text.
func inlined(sql string, values map[int]string) string {
	var out []byte
	l, at := lexer.New(sql), 0
	for {
		token, ok := l.Next()
		if !ok {
			return string(append(out, sql[at:]...))
		}
		if token.Kind != lexer.Param {
			continue
		}
		number, err := strconv.Atoi(sql[token.Start+1 : token.End])
		value, given := values[number]
		if err != nil || !given {
			continue
		}
		out = append(append(out, sql[at:token.Start]...), "'"+value+"'"...)
		at = token.End
	}
}
