package backend

import (
	"sort"
	"strings"
)

// Settings is an immutable set of run-time parameters that differ from the defaults with which a server connection
// starts. nil is the empty set. Names are kept in lower case; values are in the form that SHOW returns and set_config
// takes ("ISO, MDY"), not in that of SET.
//
// application_name never gets to a server: it carries the router's name there, and fencing rests on it.
type Settings struct {
	list []setting // sorted by name
	hash uint64    // FNV-1a of it: sets that differ are told apart at once
}

type setting struct{ name, value string }

const (
	roleSetting          = "role"
	authorizationSetting = "session_authorization"
	applicationSetting   = "application_name"
)

// NewSettings returns the set of the parameters given.
func NewSettings(values map[string]string) *Settings {
	if len(values) == 0 {
		return nil
	}
	s := &Settings{list: make([]setting, 0, len(values))}
	for name, value := range values {
		s.list = append(s.list, setting{strings.ToLower(name), value})
	}
	sort.Slice(s.list, func(i, j int) bool { return s.list[i].name < s.list[j].name })
	return s.hashed()
}

func (s *Settings) hashed() *Settings {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, p := range s.list {
		for _, text := range [2]string{p.name, p.value} {
			for i := range len(text) {
				h = (h ^ uint64(text[i])) * prime
			}
			h *= prime // a zero byte between
		}
	}
	s.hash = h
	return s
}

// Len returns the number of parameters.
func (s *Settings) Len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// Get returns the value of a parameter.
func (s *Settings) Get(name string) (string, bool) {
	name = strings.ToLower(name)
	if i, ok := s.find(name); ok {
		return s.list[i].value, true
	}
	return "", false
}

// All calls yield for each parameter in the order of names.
func (s *Settings) All(yield func(name, value string) bool) {
	if s == nil {
		return
	}
	for _, p := range s.list {
		if !yield(p.name, p.value) {
			return
		}
	}
}

// With returns the set with one parameter set; s itself if it already is.
func (s *Settings) With(name, value string) *Settings {
	name = strings.ToLower(name)
	i, ok := s.find(name)
	if ok && s.list[i].value == value {
		return s
	}
	list := make([]setting, 0, s.Len()+1)
	if s != nil {
		list = append(list, s.list[:i]...)
	}
	list = append(list, setting{name, value})
	if ok {
		i++
	}
	if s != nil {
		list = append(list, s.list[i:]...)
	}
	return (&Settings{list: list}).hashed()
}

// Without returns the set in which a parameter has its default; s itself if it already has.
func (s *Settings) Without(name string) *Settings {
	i, ok := s.find(strings.ToLower(name))
	if !ok {
		return s
	}
	if len(s.list) == 1 {
		return nil
	}
	list := append(make([]setting, 0, len(s.list)-1), s.list[:i]...)
	return (&Settings{list: append(list, s.list[i+1:]...)}).hashed()
}

// Equal reports whether both sets hold the same.
func (s *Settings) Equal(other *Settings) bool {
	if s == other {
		return true
	}
	if s.Len() != other.Len() || s.Len() > 0 && s.hash != other.hash {
		return false
	}
	for i := range s.Len() {
		if s.list[i] != other.list[i] {
			return false
		}
	}
	return true
}

func (s *Settings) find(name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	i := sort.Search(len(s.list), func(i int) bool { return s.list[i].name >= name })
	return i, i < len(s.list) && s.list[i].name == name
}

// takesRole reports whether they make the session somebody else than who logged in.
func (s *Settings) takesRole() bool {
	_, role := s.Get(roleSetting)
	_, user := s.Get(authorizationSetting)
	return role || user
}

// difference returns the SQL that brings a connection from have to want, "" if nothing is to be done. It is one
// simple query, so it happens wholly or not at all.
//
// The identity comes off first and goes on last: what was set by a superuser could not be set again under the role
// that the session took afterwards. again: roles are taken again, though they have the same names.
func difference(have, want *Settings, again, standardStrings bool) string {
	var plain, calls []string
	quote := func(s string) string { return quoteLiteral(s, standardStrings) }
	visitDifference(have, want, func(name, value string, set bool) {
		switch {
		case name == roleSetting, name == authorizationSetting, name == applicationSetting:
		case set:
			calls = append(calls, "pg_catalog.set_config("+quote(name)+", "+quote(value)+", false)")
		default:
			plain = append(plain, "RESET "+quoteName(name))
		}
	})
	haveRole, hadRole := have.Get(roleSetting)
	haveUser, hadUser := have.Get(authorizationSetting)
	wantRole, wantsRole := want.Get(roleSetting)
	wantUser, wantsUser := want.Get(authorizationSetting)
	same := !again && hadRole == wantsRole && haveRole == wantRole && hadUser == wantsUser && haveUser == wantUser
	if same && len(plain) == 0 && len(calls) == 0 {
		return ""
	}
	var statements []string
	if hadRole {
		statements = append(statements, "RESET ROLE")
	}
	if hadUser {
		statements = append(statements, "RESET SESSION AUTHORIZATION")
	}
	statements = append(statements, plain...)
	if len(calls) > 0 {
		statements = append(statements, "SELECT "+strings.Join(calls, ", "))
	}
	if wantsUser {
		statements = append(statements, "SET SESSION AUTHORIZATION "+quote(wantUser))
	}
	if wantsRole {
		statements = append(statements, "SET ROLE "+quote(wantRole))
	}
	return strings.Join(statements, "; ")
}

// visitDifference merges the two sorted lists.
func visitDifference(have, want *Settings, visit func(name, value string, set bool)) {
	i, j := 0, 0
	for i < have.Len() || j < want.Len() {
		switch {
		case j == want.Len() || i < have.Len() && have.list[i].name < want.list[j].name:
			visit(have.list[i].name, "", false)
			i++
		case i == have.Len() || want.list[j].name < have.list[i].name:
			visit(want.list[j].name, want.list[j].value, true)
			j++
		default:
			if have.list[i].value != want.list[j].value {
				visit(want.list[j].name, want.list[j].value, true)
			}
			i++
			j++
		}
	}
}

// quoteLiteral quotes for standard_conforming_strings on, where a backslash is a plain byte (it may be the second byte
// of a character in SJIS, BIG5 or GBK, so it must not be doubled there), or off.
func quoteLiteral(s string, standardStrings bool) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if !standardStrings && strings.Contains(s, `\`) {
		quoted = " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// quoteName quotes a parameter's name part by part: app.tenant is "app"."tenant".
func quoteName(name string) string {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}
