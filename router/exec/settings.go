package exec

import (
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
)

// difference are the statements that bring a connection inside a transaction from one set of settings to another.
func difference(have, want *backend.Settings) []string {
	var statements []string
	reset := func(name string) {
		switch name {
		case "role":
			statements = append(statements, "RESET ROLE")
		case "session_authorization":
			statements = append(statements, "RESET SESSION AUTHORIZATION")
		default:
			parts := strings.Split(name, ".")
			for i := range parts {
				parts[i] = directory.QuoteIdentifier(parts[i])
			}
			statements = append(statements, "RESET "+strings.Join(parts, "."))
		}
	}
	for name, value := range have.All {
		if now, ok := want.Get(name); name != "application_name" && (!ok || name == "role" && now != value) {
			reset(name)
		}
	}
	var last []string // the role comes last: it may not be allowed to change the others
	for name, value := range want.All {
		if was, ok := have.Get(name); name == "application_name" || ok && was == value {
			continue
		}
		call := "SELECT pg_catalog.set_config(" + Quote(name) + ", " + Quote(value) + ", false)"
		if name == "role" || name == "session_authorization" {
			last = append(last, call)
		} else {
			statements = append(statements, call)
		}
	}
	return append(statements, last...)
}

// Quote is a string as a literal that means the same whatever standard_conforming_strings is.
func Quote(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
