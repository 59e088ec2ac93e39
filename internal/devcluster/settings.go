package devcluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// setting is one line of postgresql.conf; the value is not yet quoted.
type setting struct{ name, value string }

// settingsFile holds our settings inside a data directory. It is written anew at each start and included by
// postgresql.conf, so that ports may change and ALTER SYSTEM still has the last word.
const settingsFile = "shardyard.conf"

// hba lets any role that exists in from this machine, over TCP, and nobody else.
const hba = `# Written by shardyard's development cluster.
host all         all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
`

// commonSettings are those of every server. fsync and synchronous_commit stay on: what the tests promise about
// commits must hold here too.
func commonSettings(s *server) []setting {
	return []setting{
		{"listen_addresses", loopback},
		{"port", fmt.Sprint(s.port)},
		{"unix_socket_directories", ""},
		{"cluster_name", s.name},
		{"fsync", "on"},
		{"synchronous_commit", "on"},
		{"full_page_writes", "on"},
		{"wal_level", "logical"},
		{"max_connections", "200"},
		{"max_prepared_transactions", "100"},
		{"max_wal_senders", "20"},
		{"max_replication_slots", "20"},
		{"max_slot_wal_keep_size", "1GB"},
		{"hot_standby", "on"},
		{"shared_buffers", "32MB"},
		{"jit", "off"},
		{"logging_collector", "off"},
		{"log_line_prefix", "%m [%p] %q%u@%d %a "},
		{"lc_messages", "C"},
		{"timezone", "UTC"},
		{"log_timezone", "UTC"},
	}
}

func (s *server) writeSettings() error {
	var text strings.Builder
	text.WriteString("# Written by shardyard's development cluster at each start. Use ALTER SYSTEM for changes.\n")
	for _, line := range s.settings(s) {
		fmt.Fprintf(&text, "%s = %s\n", line.name, quoteSetting(line.value))
	}
	name := filepath.Join(s.dir, settingsFile)
	if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return s.who.own(name)
}

// includeSettings makes a new data directory read settingsFile, and writes its pg_hba.conf.
func (s *server) includeSettings() error {
	name := filepath.Join(s.dir, "postgresql.conf")
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	text = append(text, "\ninclude_if_exists '"+settingsFile+"'\n"...)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	return nil
}

// override replaces or adds the settings that the configuration names.
func override(settings []setting, by map[string]string) []setting {
	for _, name := range slices.Sorted(maps.Keys(by)) {
		settings = slices.DeleteFunc(settings, func(s setting) bool { return strings.EqualFold(s.name, name) })
		settings = append(settings, setting{name, by[name]})
	}
	return settings
}

// quoteSetting quotes as the server's configuration reader unquotes: backslashes escape inside quotes there.
func quoteSetting(value string) string {
	return "'" + strings.NewReplacer(`'`, `''`, `\`, `\\`, "\n", `\n`).Replace(value) + "'"
}
