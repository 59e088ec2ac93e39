package catalog

import (
	"regexp"
	"slices"
	"strings"
)

// maxSettingNames bounds the names of settings that are taken from the code of a database.
const maxSettingNames = 1000

// customName is a custom setting as set_config or SET names it.
const customName = `[a-z_\x{80}-\x{10FFFF}][a-z0-9_$\x{80}-\x{10FFFF}]*(?:\.[a-z_\x{80}-\x{10FFFF}][a-z0-9_$\x{80}-\x{10FFFF}]*)+`

// between are the blanks and comments between two words.
const between = `(?:\s|--[^\n]*\n|/\*.*?\*/)`

var (
	namedSetting = regexp.MustCompile(`(?is)'(` + customName + `)'|\b(?:re)?set` + between + `+(?:(?:local|session)` + between + `+)?(` + customName + `)`)
	// setCommand is a SET or RESET at the beginning of a statement: not that of an UPDATE.
	setCommand = regexp.MustCompile(`(?is)(?:^|;|>>|[$']|\b(?:begin|then|else|loop))` + between + `*(?:re)?set\b`)
)

// SettingNames are the custom settings (with a dot) that a text may set: what SET and RESET name, and string constants that look like
// one. It reads code within strings too. They are in lower case.
func SettingNames(text string) []string {
	var names []string
	if strings.IndexByte(text, '.') < 0 {
		return nil
	}
	for _, found := range namedSetting.FindAllStringSubmatch(text, maxSettingNames) {
		name := strings.ToLower(found[1] + found[2])
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// sets reports whether the code of a text, apart from what it calls, changes settings of the session.
func sets(text string) bool {
	folded := strings.ToLower(text)
	if !strings.Contains(folded, "set") {
		return false
	}
	return strings.Contains(folded, "set_config") || strings.Contains(folded, "pg_settings") || setCommand.MatchString(text)
}

// SettingNames are the custom settings that functions of the database may set, at most 1,000.
func (s *Snapshot) SettingNames() []string { return s.settingNames }

func (s *Snapshot) collectSettingNames() {
	seen := make(map[string]bool)
	for id := range s.functionsByID {
		f := s.functionsByID[id]
		if f.Builtin() {
			continue
		}
		for _, name := range SettingNames(f.Source) {
			seen[name] = true
		}
	}
	for name := range seen {
		s.settingNames = append(s.settingNames, name)
	}
	slices.Sort(s.settingNames)
	s.settingNames = s.settingNames[:min(len(s.settingNames), maxSettingNames)]
}

// TextSets reports whether running an SQL text, or the code of a function, may change settings of the session.
func (s *Snapshot) TextSets(text string) bool {
	m := s.names.scan(text)
	if m.sets || m.dynamic || m.reader {
		return true
	}
	for _, f := range m.functions {
		if f.Sets || f.Opaque {
			return true
		}
	}
	for _, r := range m.relations {
		if r.Sets || r.Opaque {
			return true
		}
	}
	return false
}
