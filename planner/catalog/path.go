package catalog

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
)

// EffectivePath is the list of schemas that Postgres searches for user under the setting path, whose
// elements are as written ("$user" included): "$user" is replaced, schemas that do not exist, that
// user may not use or that come a second time are left out, and pg_catalog stands first unless the
// setting names it. pg_temp is kept where it is named; a session looks for its own temporary
// relations and types before this list if it is not named (never for functions and operators).
//
// Source: recomputeNamespacePath in src/backend/catalog/namespace.c.
func (s *Snapshot) EffectivePath(path []string, user string) []string {
	effective := make([]string, 0, len(path)+1)
	for _, name := range path {
		if name == "$user" {
			name = user
		}
		if slices.Contains(effective, name) {
			continue
		}
		if name == "pg_temp" || s.mayUse(name, user) {
			effective = append(effective, name)
		}
	}
	if !slices.Contains(effective, "pg_catalog") {
		effective = slices.Insert(effective, 0, "pg_catalog")
	}
	return effective
}

func (s *Snapshot) mayUse(schema, user string) bool {
	entry := s.schemas[schema]
	return entry != nil && (entry.Users == nil || slices.Contains(entry.Users, user))
}

// searched yields the schemas to search, in order: the named one alone, or those of path with
// pg_catalog first if path does not hold it.
func (s *Snapshot) searched(schema string, path []string) []string {
	if schema != "" {
		return []string{schema}
	}
	if slices.Contains(path, "pg_catalog") {
		return path
	}
	return append([]string{"pg_catalog"}, path...)
}

// ResolveTable finds the relation that a name stands for: in schema if that is given, else in the
// first schema of searchPath that has it. searchPath is what EffectivePath returned; one that is as
// written works too, except that "$user" and schemas without USAGE are not handled. Temporary
// relations are the session's and are not known here.
func (s *Snapshot) ResolveTable(schema, name string, searchPath []string) (*Relation, bool) {
	if schema == "" && !slices.Contains(searchPath, "pg_catalog") {
		if r, ok := s.relations[directory.TableName{Schema: "pg_catalog", Name: name}]; ok {
			return r, true
		}
	}
	if schema != "" {
		r, ok := s.relations[directory.TableName{Schema: schema, Name: name}]
		return r, ok
	}
	for _, candidate := range searchPath {
		if r, ok := s.relations[directory.TableName{Schema: candidate, Name: name}]; ok {
			return r, true
		}
	}
	return nil, false
}

// Function returns the overloads that a name may stand for: all of schema, or all along searchPath
// without those that an earlier schema hides by the same argument types. Which of them a call means
// depends on its arguments.
func (s *Snapshot) Function(schema, name string, searchPath []string) []*Function {
	overloads := s.functions[name]
	if len(overloads) == 0 {
		return nil
	}
	var found []*Function
	for _, candidate := range s.searched(schema, searchPath) {
		for _, f := range overloads {
			if f.Schema != candidate {
				continue
			}
			hidden := slices.ContainsFunc(found, func(earlier *Function) bool {
				return earlier.Schema != candidate && slices.Equal(earlier.ArgTypes, f.ArgTypes)
			})
			if !hidden {
				found = append(found, f)
			}
		}
	}
	return found
}

// TypeByName finds the type that a name stands for, as ResolveTable finds relations. The name is that
// of pg_type ("int4", "_text"), not the grammar's ("integer").
func (s *Snapshot) TypeByName(schema, name string, searchPath []string) (*Type, bool) {
	for _, candidate := range s.searched(schema, searchPath) {
		if t, ok := s.types[typeName{candidate, name}]; ok {
			return t, true
		}
	}
	return nil, false
}
