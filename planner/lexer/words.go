package lexer

// wordClass is what the normaliser must know about a word; a set of bits.
type wordClass uint16

const (
	wordStatement   wordClass = 1 << iota // begins a statement or subquery whose literals may be left open
	wordValue                             // a string behind it is a value, not a typed literal
	wordCall                              // a name behind it, with parentheses, is a function, not a type
	wordNoName                            // cannot name a function or type
	wordAs                                // AS
	wordBy                                // BY
	wordOrderGroup                        // ORDER, GROUP
	wordDistinct                          // DISTINCT
	wordOn                                // ON
	wordQuantifier                        // DISTINCT, ALL
	wordGrouping                          // ROLLUP, CUBE, SETS
	wordModified                          // a built-in type (or its last word) or value function that takes modifiers
	wordArray                             // ARRAY
	wordEndsElement                       // ends an element of ORDER BY, GROUP BY or DISTINCT ON
)

// wordClasses holds the words that have any class.
//
// Invariant: wordCall is given only to words that cannot name a column, that is
// to reserved keywords and those of the class type_func_name_keyword (see
// src/include/parser/kwlist.h): behind a column's name, a column definition
// has its type. wordNoName is given only to reserved keywords and those of the
// class col_name_keyword, which cannot name functions or types.
var wordClasses = makeWordClasses()

func makeWordClasses() map[string]wordClass {
	classes := make(map[string]wordClass)
	add := func(class wordClass, words ...string) {
		for _, word := range words {
			classes[word] |= class
		}
	}
	add(wordStatement, "select", "insert", "update", "delete", "merge", "values", "with")
	add(wordValue|wordCall|wordNoName,
		"select", "distinct", "all", "any", "some", "where", "and", "or", "not", "in", "when", "then", "else", "case",
		"on", "having", "limit", "offset", "fetch", "from", "using", "union", "intersect", "except",
		"to", "for", "symmetric", "asymmetric", "lateral", "both", "leading", "trailing", "into", "window", "with")
	add(wordValue|wordCall, "like", "ilike", "similar")
	add(wordCall, "is", "join", "cross", "inner", "left", "right", "full", "natural", "outer")
	add(wordValue|wordNoName, "returning") // a type may follow it: JSON_VALUE(… RETURNING t(3))
	add(wordValue|wordNoName, "between", "values", "exists", "row", "setof")
	add(wordValue, "escape")
	add(wordAs|wordNoName, "as")
	add(wordBy, "by")
	add(wordOrderGroup|wordNoName, "order", "group")
	add(wordDistinct|wordQuantifier, "distinct")
	add(wordQuantifier, "all")
	add(wordOn, "on")
	add(wordGrouping, "rollup", "cube", "sets")
	add(wordArray|wordNoName, "array")
	add(wordModified, "varchar", "char", "character", "varying", "nchar", "bpchar", "numeric", "decimal", "dec", "bit", "varbit",
		"timestamp", "timestamptz", "time", "timetz", "interval", "second", "float",
		"current_time", "current_timestamp", "localtime", "localtimestamp")
	add(wordEndsElement, "asc", "desc", "nulls", "limit", "offset", "fetch", "for", "having", "window", "order",
		"union", "intersect", "except", "returning")
	return classes
}

// classOf returns the class of a word in any case, without allocating.
func classOf(word string) wordClass {
	var folded [20]byte
	if len(word) > len(folded) {
		return 0 // longer than any of wordClasses
	}
	for i := 0; i < len(word); i++ {
		folded[i] = foldByte(word[i])
	}
	return wordClasses[string(folded[:len(word)])]
}
