package catalogs

import (
	"strconv"
	"strings"
)

// constant reads a default expression as pg_get_expr prints it (search_path empty, ISO dates). It is a
// constant only if it is one literal which has the column's own type (plain, without modifier), or a
// number that becomes it exactly: anything else (1.5 for an integer, a date for a timestamptz) is for
// Postgres to convert.
func constant(expression, plain string) (value string, null, ok bool) {
	literal, cast := splitCast(expression)
	if strings.EqualFold(literal, "NULL") {
		return "", true, true
	}
	if strings.HasPrefix(literal, "'") {
		if cast != plain {
			return "", false, false
		}
		value, ok = unquote(literal)
		return value, false, ok
	}
	if cast != "" {
		return "", false, false
	}
	switch plain {
	case "boolean":
		return literal, false, literal == "true" || literal == "false"
	case "smallint", "integer", "bigint":
		_, err := strconv.ParseInt(literal, 10, 64)
		return literal, false, err == nil
	case "numeric":
		return literal, false, isNumber(literal)
	}
	return "", false, false
}

// splitCast takes literal::type apart; the type's own modifier counts as part of the type.
func splitCast(expression string) (literal, cast string) {
	var end int
	if strings.HasPrefix(expression, "'") {
		for end = 1; end < len(expression); end++ {
			if expression[end] != '\'' {
				continue
			}
			if end+1 < len(expression) && expression[end+1] == '\'' {
				end++
				continue
			}
			end++
			break
		}
	} else if end = strings.Index(expression, "::"); end < 0 {
		return expression, ""
	}
	rest, found := strings.CutPrefix(expression[end:], "::")
	if !found && rest != "" {
		return expression, "?"
	}
	return expression[:end], rest
}

// unquote decodes a plain string constant. pg_get_expr prints one with a backslash as E'…', which is
// not taken for a constant.
func unquote(literal string) (string, bool) {
	if len(literal) < 2 || literal[len(literal)-1] != '\'' {
		return "", false
	}
	return strings.ReplaceAll(literal[1:len(literal)-1], "''", "'"), true
}

func isNumber(literal string) bool {
	dots := 0
	for i, c := range literal {
		switch {
		case c >= '0' && c <= '9':
		case c == '.':
			dots++
		case c == '-' && i == 0:
		default:
			return false
		}
	}
	return literal != "" && dots <= 1
}
