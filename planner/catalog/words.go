package catalog

import "strings"

const maxIdentifier = 63

// words calls visit with every identifier of an SQL text, folded and cut as Postgres does, and with
// every run of operator characters. It does not tell code from strings, comments and quoted
// identifiers: a name in a string may well be used as a name (regclass), and too many names are only
// over-cautious. A Unicode identifier (U&"…"), whose name is escaped, is reported as the word u&".
// Names that are not plain (see plain) are not found this way.
func words(text string, visit func(word string, operator bool)) {
	wordsAt(text, func(word string, operator bool, _ int) { visit(word, operator) })
}

// wordsAt is words that tells where each begins.
func wordsAt(text string, visit func(word string, operator bool, start int)) {
	for i := 0; i < len(text); {
		c := text[i]
		start := i
		switch {
		case isWordStart(c):
			for i < len(text) && isWordPart(text[i]) {
				i++
			}
			word := fold(text[start:i])
			if word == "u" && strings.HasPrefix(text[i:], `&"`) {
				word = `u&"`
			}
			visit(cut(word), false, start)
		case strings.IndexByte(operatorCharacters, c) >= 0:
			for i < len(text) && strings.IndexByte(operatorCharacters, text[i]) >= 0 {
				i++
			}
			visit(text[start:i], true, start)
		default:
			i++
		}
	}
}

// qualifier is the name that stands before the word at start, with a dot between, as in schema.table; "" if there is none, or one that
// is not read: more than blanks of the same line stand between, or it is quoted and holds a quote.
func qualifier(text string, start int) string {
	before, ok := strings.CutSuffix(strings.TrimRight(strings.TrimSuffix(text[:start], `"`), " \t"), ".")
	if !ok {
		return ""
	}
	before = strings.TrimRight(before, " \t")
	if inner, quoted := strings.CutSuffix(before, `"`); quoted {
		open := strings.LastIndexByte(inner, '"')
		if open < 0 || open > 0 && inner[open-1] == '"' {
			return ""
		}
		return inner[open+1:]
	}
	i := len(before)
	for i > 0 && isWordPart(before[i-1]) {
		i--
	}
	if i == len(before) || !isWordStart(before[i]) {
		return ""
	}
	return cut(fold(before[i:]))
}

const operatorCharacters = "~!@#^&|`?+-*/%<>="

// plain tells whether a name can be written without quotes, so that words finds it.
func plain(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= 'A' && c <= 'Z' || !isWordPart(c) || i == 0 && !isWordStart(c) {
			return false
		}
	}
	return name != ""
}

// containsName tells whether a name that is not plain may stand in the text.
func containsName(text, name string) bool {
	return strings.Contains(text, strings.ReplaceAll(name, `"`, `""`))
}

func isWordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isWordPart(c byte) bool { return isWordStart(c) || c >= '0' && c <= '9' || c == '$' }

// fold lower-cases ASCII letters only, as Postgres does in a multi-byte encoding.
func fold(word string) string {
	for i := 0; i < len(word); i++ {
		if word[i] >= 'A' && word[i] <= 'Z' {
			b := []byte(word)
			for j := range b {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return word
}

func cut(word string) string {
	if len(word) > maxIdentifier {
		return strings.ToValidUTF8(word[:maxIdentifier], "")
	}
	return word
}
