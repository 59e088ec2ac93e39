package console

import (
	"strings"

	"github.com/shardyard/shardyard/router/pgerr"
)

// verb is what a command does.
type verb uint8

const (
	verbEmpty verb = iota
	verbShow
	verbReload
	verbReconnect
	verbKill
	verbBegin
	verbEnd
	verbIgnore // what drivers send at their start
	verbOne    // SELECT 1, by which pools of drivers try connections
)

// command is one command as it was read.
type command struct {
	verb     verb
	argument string
	show     *show // of SHOW
	tag      string
}

const codeSyntax = "42601"

// clientSettings are what drivers set; a console has none of them, and no answer depends on them.
var clientSettings = map[string]bool{
	"application_name": true, "client_encoding": true, "client_min_messages": true, "datestyle": true, "extra_float_digits": true,
	"idle_in_transaction_session_timeout": true, "intervalstyle": true, "lock_timeout": true, "names": true, "search_path": true,
	"session": true, "standard_conforming_strings": true, "statement_timeout": true, "time": true, "timezone": true,
}

// parse reads one command, without its semicolon.
func parse(text string) (command, error) {
	words := words(text)
	if len(words) == 0 {
		return command{verb: verbEmpty}, nil
	}
	first, rest := strings.ToUpper(words[0]), words[1:]
	c := command{tag: first}
	switch first {
	case "SHOW":
		c.verb = verbShow
		if len(rest) != 1 {
			break
		}
		c.show = shows[strings.ToLower(rest[0])]
		if c.show == nil {
			break
		}
		return c, nil
	case "RELOAD":
		c.verb = verbReload
		if len(rest) == 0 {
			return c, nil
		}
	case "RECONNECT":
		c.verb = verbReconnect
		if len(rest) <= 1 {
			c.argument = name(strings.Join(rest, ""))
			return c, nil
		}
	case "KILL_CLIENT":
		c.verb = verbKill
		if len(rest) == 1 {
			c.argument = rest[0]
			return c, nil
		}
	case "BEGIN", "START":
		c.verb, c.tag = verbBegin, "BEGIN"
		return c, nil
	case "COMMIT", "END", "ROLLBACK", "ABORT":
		c.verb = verbEnd
		if first == "END" {
			c.tag = "COMMIT"
		} else if first == "ABORT" {
			c.tag = "ROLLBACK"
		}
		return c, nil
	case "SET":
		if len(rest) > 0 && clientSettings[strings.ToLower(rest[0])] {
			c.verb = verbIgnore
			return c, nil
		}
		return command{}, pgerr.Unsupported("settings are not changed in the admin database", "Change the configuration and run RELOAD.")
	case "SELECT":
		if len(rest) == 1 && rest[0] == "1" {
			c.verb, c.tag = verbOne, "SELECT 1"
			return c, nil
		}
	case "PAUSE", "RESUME", "SUSPEND", "DISABLE", "ENABLE", "KILL", "WAIT_CLOSE", "SHUTDOWN":
		return command{}, errUnsafe(first)
	}
	return command{}, pgerr.Newf(codeSyntax, "invalid command %q", strings.Join(words, " ")).WithHint("SHOW HELP lists the commands.")
}

// errUnsafe refuses PgBouncer's commands that stop the traffic of a database: a transaction over several shards that holds one
// connection and may not have another would never end.
func errUnsafe(command string) error {
	hint := "Stop the router with SIGTERM: it lets open transactions end."
	if command == "KILL" || command == "DISABLE" || command == "ENABLE" {
		hint = "ALTER DATABASE … ALLOW_CONNECTIONS keeps clients out, KILL_CLIENT ends one."
	}
	return pgerr.Unsupported(command+" is not supported", hint)
}

// words splits a command at blanks; comments are left out, quoted names stay whole.
func words(text string) []string {
	var list []string
	for i := 0; i < len(text); {
		switch rest := text[i:]; {
		case isBlank(text[i]) || text[i] == '=':
			i++
		case strings.HasPrefix(rest, "--"):
			i += lengthTo(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			i += lengthTo(rest, "*/")
		default:
			n := wordLength(rest)
			list = append(list, rest[:n])
			i += n
		}
	}
	return list
}

func isBlank(ch byte) bool { return ch == ' ' || ch >= '\t' && ch <= '\r' }

// lengthTo is the length of the text up to the end of what ends it, or of all of it.
func lengthTo(text, end string) int {
	if at := strings.Index(text, end); at >= 0 {
		return at + len(end)
	}
	return len(text)
}

func wordLength(text string) int {
	if quote := text[0]; quote == '"' || quote == '\'' {
		return 1 + lengthTo(text[1:], string(quote))
	}
	n := 1
	for n < len(text) && !isBlank(text[n]) && text[n] != '=' && text[n] != '"' && text[n] != '\'' {
		n++
	}
	return n
}

// name is a database's name as it was written: in quotes, or folded to lower case.
func name(word string) string {
	if len(word) >= 2 && (word[0] == '"' || word[0] == '\'') && word[len(word)-1] == word[0] {
		return word[1 : len(word)-1]
	}
	return strings.ToLower(word)
}

// split cuts a text at its semicolons, but for those in quotes and comments.
func split(text string) []string {
	var list []string
	start := 0
	for i := 0; i < len(text); {
		switch rest := text[i:]; {
		case text[i] == ';':
			list = append(list, text[start:i])
			i++
			start = i
		case strings.HasPrefix(rest, "--"):
			i += lengthTo(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			i += lengthTo(rest, "*/")
		case text[i] == '"' || text[i] == '\'':
			i += wordLength(rest)
		default:
			i++
		}
	}
	return append(list, text[start:])
}
