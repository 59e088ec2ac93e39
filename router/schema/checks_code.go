package schema

import (
	"fmt"
	"slices"

	"github.com/shardyard/shardyard/directory"
)

// checkTriggers refuses triggers that could change the key, that see statements instead of rows, and whose
// functions may reach tables that are elsewhere.
func (s *subject) checkTriggers() error {
	for _, trigger := range s.rel.Triggers {
		drop := fmt.Sprintf("DROP TRIGGER %s ON %s", directory.QuoteIdentifier(trigger.Name), s.rel.Name)
		if s.table.Kind == directory.TableSharded {
			switch {
			case !trigger.Row:
				return s.refuse(fmt.Sprintf("trigger %q is a statement-level trigger", trigger.Name),
					"It would fire once on each shard: "+drop+", or make it FOR EACH ROW.")
			case trigger.Before:
				return s.refuse(fmt.Sprintf("trigger %q is a BEFORE ROW trigger", trigger.Name),
					"It could change the sharding key after the row was routed: "+drop+", or use a default, a generated column or an AFTER trigger.")
			}
		}
		// By name, not by OID: the table may be described by another shard than the functions.
		touches, opaque := s.catalog.ExpressionReach(trigger.Definition)
		if s.table.Kind == directory.TableReference {
			touches = s.away(touches)
		}
		if err := s.checkReach(fmt.Sprintf("trigger %q runs code", trigger.Name), touches, opaque, drop); err != nil {
			return err
		}
	}
	return nil
}

// checkExpressions refuses policies, checks, defaults and generated columns whose code may reach tables that
// are elsewhere.
func (s *subject) checkExpressions() error {
	for _, policy := range s.rel.Policies {
		drop := fmt.Sprintf("DROP POLICY %s ON %s", directory.QuoteIdentifier(policy.Name), s.rel.Name)
		if err := s.checkExpression(fmt.Sprintf("policy %q", policy.Name), policy.Using+" "+policy.WithCheck, drop); err != nil {
			return err
		}
	}
	for _, check := range s.rel.Checks {
		drop := fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", s.rel.Name, directory.QuoteIdentifier(check.Name))
		if err := s.checkExpression(fmt.Sprintf("check constraint %q", check.Name), check.Expression, drop); err != nil {
			return err
		}
	}
	for _, col := range s.rel.Live() {
		drop := fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT", s.rel.Name, directory.QuoteIdentifier(col.Name))
		if s.table.Kind == directory.TableReference && !col.Generated {
			continue // evaluated on the home shard; what it may reach there is checked with each statement
		}
		if err := s.checkExpression(fmt.Sprintf("the default of column %q", col.Name), col.Default, drop); err != nil {
			return err
		}
	}
	return nil
}

// away leaves those tables that the home shard does not have all rows of: the triggers of a reference table fire
// there only.
func (s *subject) away(names []directory.TableName) []directory.TableName {
	return slices.DeleteFunc(slices.Clone(names), func(name directory.TableName) bool {
		t, ok := s.m.Table(name)
		return !ok || t.Kind == directory.TablePinned && t.Shard == s.m.Home
	})
}

func (s *subject) checkExpression(what, expression, wayOut string) error {
	if expression == "" || expression == " " {
		return nil
	}
	touches, opaque := s.catalog.ExpressionReach(expression)
	return s.checkReach(what+" runs code", touches, opaque, wayOut)
}

func (s *subject) checkReach(what string, touches []directory.TableName, opaque bool, wayOut string) error {
	if opaque {
		return s.refuse(what+" that may reach any table (dynamic SQL, or a language that is not read)",
			wayOut+", or write the code in SQL or PL/pgSQL without EXECUTE.")
	}
	for _, name := range touches {
		if !s.together(name) {
			return s.refuse(fmt.Sprintf("%s that may reach %q, which is not on the same shards", what, name.String()),
				wayOut+", or shard that table COLOCATE WITH this one first.")
		}
	}
	return nil
}
