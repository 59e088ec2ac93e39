package catalogs

import (
	"context"
	"testing"

	"github.com/shardyard/shardyard/planner/catalog"
)

// TestBuiltins: what initdb made is read once, and again after somebody has changed some of it.
func TestBuiltins(t *testing.T) {
	conn := connect(t, 0, types)
	loader := &Loader{}
	load := func() *catalog.Snapshot {
		t.Helper()
		s, err := loader.LoadOn(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lower := func(s *catalog.Snapshot) *catalog.Function {
		t.Helper()
		all := s.Function("pg_catalog", "lower", nil)
		for _, f := range all {
			if f.ReturnType == 25 {
				return f
			}
		}
		t.Fatalf("lower(text) is not among %v", all)
		return nil
	}
	first, second := load(), load()
	if lower(first) != lower(second) {
		t.Error("the built-in functions were read twice")
	}
	for name, s := range map[string]*catalog.Snapshot{"first": first, "second": second} {
		reader := s.Function("pg_catalog", "query_to_xml", nil)
		if len(reader) != 1 || !reader[0].Opaque || lower(s).Opaque || lower(s).Volatility != catalog.Immutable {
			t.Errorf("%s: query_to_xml %+v, lower %+v", name, reader, lower(s))
		}
		domain, ok := s.TypeByName("information_schema", "cardinal_number", nil)
		if !ok || len(domain.Checks) != 1 {
			t.Errorf("%s: cardinal_number %+v", name, domain)
		}
		if own, ok := s.TypeByName("public", "pair", nil); !ok || len(own.Attributes) != 2 {
			t.Errorf("%s: pair %+v", name, own)
		}
	}
	if _, err := conn.Exec(t.Context(), "ALTER FUNCTION pg_catalog.lower(text) VOLATILE"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), "ALTER FUNCTION pg_catalog.lower(text) IMMUTABLE"); err != nil {
			t.Error(err)
		}
	})
	if f := lower(load()); f.Volatility != catalog.Volatile {
		t.Errorf("lower is still %+v", f)
	}
	if len(loader.builtins) != 1 {
		t.Errorf("%d databases are kept", len(loader.builtins))
	}
}
