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
	return classOfFolded(folded[:len(word)])
}

// wordTable finds the classes of words without the cost of a map, which would be a quarter of what normalising costs: most
// words of a statement have no class and are told by one byte of index.
type wordTable struct {
	index   [512]uint8 // open addressing: a position in entries plus 1, 0 for none
	entries []wordEntry
}

type wordEntry struct {
	word  string
	class wordClass
}

// classTable has the words of wordClasses.
var classTable = makeWordTable(wordClasses)

func makeWordTable(classes map[string]wordClass) *wordTable {
	t := &wordTable{}
	if len(classes) > 255 {
		panic("lexer: too many words for an index of bytes")
	}
	for word, class := range classes {
		t.entries = append(t.entries, wordEntry{word, class})
		at := wordHash([]byte(word))
		for t.index[at] != 0 {
			at = (at + 1) % uint32(len(t.index))
		}
		t.index[at] = uint8(len(t.entries))
	}
	return t
}

// wordHash mixes the length and three letters; word is not empty.
func wordHash(word []byte) uint32 {
	n := len(word)
	h := uint32(word[0]) | uint32(word[n/2])<<8 | uint32(word[n-1])<<16 | uint32(n)<<24
	return h * 0x9E3779B1 >> 23 // Fibonacci hashing (Knuth, volume 3, 6.4), 9 bits
}

// classOfFolded returns the class of a word in lower case, which is not empty.
func classOfFolded(word []byte) wordClass {
	t := classTable
	for at := wordHash(word); t.index[at] != 0; at = (at + 1) % uint32(len(t.index)) {
		if entry := &t.entries[t.index[at]-1]; entry.word == string(word) {
			return entry.class
		}
	}
	return 0
}
