package auth

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// identMaps are the maps of pg_ident.conf by name.
type identMaps map[string][]identLine

// identLine lets the holder of a certificate be a role.
type identLine struct {
	name    string         // in the certificate
	pattern *regexp.Regexp // instead of name
	role    string         // of a pattern it may contain \1
}

func parseIdent(text string) (identMaps, error) {
	maps := make(identMaps)
	err := eachLine(text, func(_ int, fields []field) error {
		if len(fields) != 3 {
			return fmt.Errorf("it has %d fields instead of three: map, name in the certificate, role", len(fields))
		}
		var words [3]string
		for i, what := range []string{"map", "name in the certificate", "role"} {
			var err error
			if words[i], err = fields[i].single(what); err != nil {
				return err
			}
		}
		line := identLine{name: words[1], role: words[2]}
		if expression, ok := strings.CutPrefix(words[1], "/"); ok {
			var err error
			if line.pattern, err = compilePattern(expression); err != nil {
				return err
			}
			if strings.Contains(line.role, `\1`) && line.pattern.NumSubexp() < 1 {
				return fmt.Errorf("regular expression %q has no parentheses for the \\1 in %q", expression, line.role)
			}
		}
		maps[words[0]] = append(maps[words[0]], line)
		return nil
	})
	return maps, err
}

// compilePattern takes what Go's regular expressions and Postgres's have in common.
func compilePattern(expression string) (*regexp.Regexp, error) {
	if strings.Contains(expression, `\b`) || strings.Contains(expression, `\B`) {
		return nil, errors.New(`\b and \B mean something else in Postgres's regular expressions and are not supported`)
	}
	pattern, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expression, err)
	}
	return pattern, nil
}

// admits reports whether the holder of a certificate may be the role.
func (m identMaps) admits(name, mapName, role string) bool {
	if mapName == "" {
		return name == role
	}
	for _, line := range m[mapName] {
		if line.pattern == nil {
			if line.name == name && line.role == role {
				return true
			}
			continue
		}
		groups := line.pattern.FindStringSubmatch(name)
		if groups == nil {
			continue
		}
		meant := line.role
		if len(groups) > 1 {
			meant = strings.Replace(meant, `\1`, groups[1], 1)
		}
		if meant == role {
			return true
		}
	}
	return false
}
