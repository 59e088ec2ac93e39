package lexer

import "strings"

// CallWords and NoNameWords are the words on whose keyword class the
// normaliser's rules rest.
func CallWords() []string   { return wordsOf(wordCall) }
func NoNameWords() []string { return wordsOf(wordNoName) }

func wordsOf(class wordClass) []string {
	var words []string
	for word, classes := range wordClasses {
		if classes&class != 0 {
			words = append(words, word)
		}
	}
	return words
}

// MaxFoldedWord is the length of the longest word with a class.
func MaxFoldedWord() int {
	longest := 0
	for word := range wordClasses {
		longest = max(longest, len(word))
	}
	return longest
}

// WordClassesDiffer tells of a word whose class the table does not know as the list of words does.
func WordClassesDiffer(words ...string) string {
	for _, word := range words {
		if classOfFolded([]byte(word)) != wordClasses[word] {
			return word
		}
	}
	for word, class := range wordClasses {
		if classOfFolded([]byte(word)) != class || classOf(strings.ToUpper(word)) != class {
			return word
		}
	}
	return ""
}
