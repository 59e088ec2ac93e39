package planner

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/lexer"
)

const hintCopyNumbers = "Name the column in the column list and give the numbers."

// copyNumbers are the fields of a row of COPY as shards get it: in front of those that the client sends the columns that are
// numbered and not given. In front, because what is wrong with the client's fields is then told as without them.
func (a *analysis) copyNumbers(c *copyStmt, r *reference, rows *CopyRows) ([]*catalog.Column, *Error) {
	fields := copyFields(c, r.relation)
	var numbered []*catalog.Column
	for _, col := range r.relation.Live() {
		if col.Sequence.Name == "" || slices.ContainsFunc(fields, func(f *catalog.Column) bool { return f.Name == col.Name }) {
			continue
		}
		n, err := a.numberOf(col)
		if err != nil {
			return nil, err
		}
		rows.Numbers, numbered = append(rows.Numbers, n), append(numbered, col)
	}
	if len(numbered) == 0 {
		return fields, nil
	}
	if !a.nameNumbers(c, rows) {
		return nil, refuse(hintCopyNumbers, "COPY into sharded table %s without values for column %q, which has a sequence, is not supported in this form",
			r.name, numbered[0].Name)
	}
	return append(numbered, fields...), nil
}

// nameNumbers makes the text that names the numbered columns; false if the column list, which a row that leaves a column out
// needs, is not found.
func (a *analysis) nameNumbers(c *copyStmt, rows *CopyRows) bool {
	tokens, ok := behindTarget(a.sql, c.Relation)
	if !ok {
		return false
	}
	lex := lexer.New(a.sql)
	for range tokens {
		lex.Next()
	}
	open, ok := lex.Next()
	if !ok || !open.IsPunct(a.sql, '(') {
		return false
	}
	var names []string
	for _, n := range rows.Numbers {
		names = append(names, n.Column)
	}
	inserted := quotedNames(names) + ", "
	rows.SQL = a.sql[:open.End] + inserted + a.sql[open.End:]
	rows.InsertedAt, rows.InsertedLength = utf8.RuneCountInString(a.sql[:open.End]), utf8.RuneCountInString(inserted)
	return true
}

// checkCopyNumbers refuses what does not go together with numbers of the router.
func (a *analysis) checkCopyNumbers(r *reference, rows *CopyRows) {
	for _, c := range r.relation.Live() {
		given := !slices.ContainsFunc(rows.Numbers, func(n Number) bool { return n.Column == c.Name })
		if c.Sequence.Name != "" && given && rows.HasDefault {
			rows.refuse(refuse("Leave the column out of the column list, or give the numbers.",
				"COPY with the option DEFAULT into sharded table %s with column %q, which has a sequence, is not supported", r.name, c.Name))
		}
	}
	if len(rows.Numbers) > 0 && strings.ContainsAny(rows.Delimiter+rows.Quote+rows.Escape, "0123456789-") {
		rows.refuse(refuse(hintCopyNumbers, "COPY with a digit or a minus sign as delimiter, quote or escape is not supported where columns get values of sequences"))
	}
}
