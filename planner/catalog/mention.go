package catalog

import (
	"slices"
	"strings"
)

// nameIndex finds the user relations and functions that a text may name.
type nameIndex struct {
	relations map[string][]*Relation
	functions map[string][]*Function
	types     map[string][]*Type
	operators map[string][]*Function // by operator name: what they call
	quoted    []string               // the names among them that words does not find
	schemas   map[string]*Schema
}

// mentions is what a text may name.
type mentions struct {
	relations []*Relation
	// bare are those that are named without their schemas only: the search path says which of the same name are meant.
	bare      map[*Relation]bool
	functions []*Function
	types     []*Type
	reader    bool // a built-in that reads tables named by a value
	dynamic   bool // EXECUTE, or an identifier that we do not decode
	sets      bool // changes settings of the session
}

func (s *Snapshot) newNameIndex() *nameIndex {
	x := &nameIndex{
		relations: make(map[string][]*Relation), functions: make(map[string][]*Function),
		types: make(map[string][]*Type), operators: make(map[string][]*Function), schemas: s.schemas,
	}
	for _, r := range s.users {
		if x.relations[r.Name.Name] == nil && !plain(r.Name.Name) {
			x.quoted = append(x.quoted, r.Name.Name)
		}
		x.relations[r.Name.Name] = append(x.relations[r.Name.Name], r)
	}
	for name, overloads := range s.functions {
		for _, f := range overloads {
			if f.Builtin() {
				continue
			}
			if x.functions[name] == nil && !plain(name) {
				x.quoted = append(x.quoted, name)
			}
			x.functions[name] = append(x.functions[name], f)
		}
	}
	for _, t := range s.typesByID {
		if t.OID < firstUserOID || t.IsArray() {
			continue
		}
		if x.types[t.Name] == nil && !plain(t.Name) {
			x.quoted = append(x.quoted, t.Name)
		}
		x.types[t.Name] = append(x.types[t.Name], t)
	}
	for name, operators := range s.operators {
		for _, op := range operators {
			if f, ok := s.functionsByID[op.Function]; ok && !f.Builtin() {
				x.operators[name] = append(x.operators[name], f)
			}
		}
	}
	return x
}

func (x *nameIndex) scan(text string) mentions {
	m := mentions{sets: sets(text)}
	seen := make(map[string]bool)
	name := func(word string) {
		if seen[word] {
			return
		}
		seen[word] = true
		m.functions = append(m.functions, x.functions[word]...)
		m.types = append(m.types, x.types[word]...)
		m.reader = m.reader || readers[word]
		m.dynamic = m.dynamic || word == "execute" || word == `u&"`
	}
	wordsAt(text, func(word string, operator bool, start int) {
		if !operator {
			name(word)
			x.mention(&m, word, text, start)
			return
		}
		for symbol, functions := range x.operators {
			if strings.Contains(word, symbol) {
				m.functions = append(m.functions, functions...)
			}
		}
	})
	for _, quoted := range x.quoted {
		if containsName(text, quoted) {
			name(quoted)
			for _, r := range x.relations[quoted] {
				m.reaches(r, false)
			}
		}
	}
	return m
}

// mention notes the relations that a word at start may stand for.
func (x *nameIndex) mention(m *mentions, word, text string, start int) {
	list := x.relations[word]
	if len(list) == 0 {
		return
	}
	schema := qualifier(text, start)
	exact := x.schemas[schema] != nil
	for _, r := range list {
		if !exact || r.Name.Schema == schema {
			m.reaches(r, !exact)
		}
	}
}

func (m *mentions) reaches(r *Relation, bare bool) {
	if !slices.Contains(m.relations, r) {
		m.relations = append(m.relations, r)
		if m.bare == nil {
			m.bare = make(map[*Relation]bool)
		}
		m.bare[r] = bare
	}
	m.bare[r] = m.bare[r] && bare
}
