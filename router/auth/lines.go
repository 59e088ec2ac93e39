package auth

import (
	"errors"
	"fmt"
	"strings"
)

// word is one item of a line of pg_hba.conf or pg_ident.conf.
type word struct {
	text string
	// quoted: it begins with a quote, so it is a name though it may look like a keyword.
	quoted bool
}

// field is what stands between blanks: words separated by commas. There is at least one.
type field []word

// single returns the word of a field that must not be a list.
func (f field) single(what string) (string, error) {
	if len(f) != 1 {
		return "", fmt.Errorf("%s cannot be a list", what)
	}
	return f[0].text, nil
}

// plainName refuses what means more than the name that it is.
func (w word) plainName(what string) error {
	switch {
	case strings.HasPrefix(w.text, "@"):
		return fmt.Errorf("%s %s is not supported: write the names into this file, or quote a name that begins with @", what, w.text)
	case strings.HasPrefix(w.text, "/"):
		return fmt.Errorf("%s %s is not supported: regular expressions are not, and a name that begins with / is quoted", what, w.text)
	}
	return nil
}

// eachLine calls take for each line that has fields, with its number. Lines that end in a backslash go on in the next.
func eachLine(text string, take func(number int, fields []field) error) error {
	number, first := 0, 0
	var whole strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if whole.Len() == 0 {
			first = number
		}
		line = strings.TrimSuffix(line, "\r")
		if before, continued := strings.CutSuffix(line, `\`); continued {
			whole.WriteString(before)
			continue
		}
		whole.WriteString(line)
		fields, err := splitFields(whole.String())
		whole.Reset()
		if err == nil && len(fields) > 0 {
			err = take(first, fields)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", first, err)
		}
	}
	if whole.Len() > 0 {
		return fmt.Errorf("line %d: nothing follows the backslash at its end", first)
	}
	return nil
}

// splitFields cuts a line as Postgres does: quotes may stand inside of a word, two of them are one, # begins a comment.
func splitFields(line string) ([]field, error) {
	if strings.ContainsRune(line, 0) {
		return nil, errors.New("it contains a zero byte")
	}
	var fields []field
	continued := false // a comma ended the last word, so the next belongs to the same field
	for {
		for line != "" && (isBlank(line[0]) || line[0] == ',') {
			line = line[1:]
		}
		if line == "" || line[0] == '#' {
			return fields, nil
		}
		w, rest, err := cutWord(line)
		if err != nil {
			return nil, err
		}
		if continued {
			fields[len(fields)-1] = append(fields[len(fields)-1], w)
		} else {
			fields = append(fields, field{w})
		}
		line, continued = strings.CutPrefix(rest, ",")
	}
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\r' }

// cutWord cuts the word off the front of a line that does not begin with a blank.
func cutWord(line string) (w word, rest string, err error) {
	var text strings.Builder
	w.quoted = line[0] == '"'
	inQuote := false
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '"' && inQuote && i+1 < len(line) && line[i+1] == '"':
			text.WriteByte('"')
			i++
		case c == '"':
			inQuote = !inQuote
		case !inQuote && (isBlank(c) || c == ',' || c == '#'):
			w.text = text.String()
			return w, line[i:], nil
		default:
			text.WriteByte(c)
		}
	}
	if inQuote {
		return w, "", errors.New("a quote is not closed")
	}
	w.text = text.String()
	return w, "", nil
}
