package auth

import (
	"errors"
	"fmt"
	"strings"
)

// ParseUserList reads roles and their verifiers or passwords in the format of PgBouncer's userlist.txt: lines of
// "name" "verifier", in which two quotes stand for one. Lines that begin with ; or # are comments. A later line for the same
// role counts.
func ParseUserList(text string) (map[string]string, error) {
	users := make(map[string]string)
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.Trim(line, " \t\r")
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		user, rest, err := cutQuoted(line)
		var stored string
		if err == nil {
			stored, _, err = cutQuoted(strings.TrimLeft(rest, " \t")) // PgBouncer ignores what follows
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", number, err)
		case user == "":
			return nil, fmt.Errorf("line %d: the role has no name", number)
		case len(user) > maxName:
			return nil, fmt.Errorf("line %d: the role's name has more than %d bytes", number, maxName)
		}
		if _, err := ParseVerifier(stored, true); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		users[user] = stored
	}
	return users, nil
}

// maxName is the longest name that Postgres has.
const maxName = 63

// cutQuoted cuts a quoted string off the front of a line.
func cutQuoted(line string) (text, rest string, err error) {
	if line == "" || line[0] != '"' {
		return "", "", errors.New(`it is not "role" "verifier"`)
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == 0:
			return "", "", errors.New("it contains a zero byte")
		case line[i] != '"':
			b.WriteByte(line[i])
		case i+1 < len(line) && line[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), line[i+1:], nil
		}
	}
	return "", "", errors.New("a quote is not closed")
}
