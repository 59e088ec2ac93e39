package mirror

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// Mirror is one mirrored thing: rows of a table that are kept on other shards as they are on one.
type Mirror struct {
	// ID names it in triggers, in the outbox and on the mirrors. It is never used again.
	ID    string
	Table directory.TableName
	// Key are columns with a unique index that is neither deferrable nor partial, and not null: they tell which
	// row is meant.
	Key []string
	// Authority executes the statements.
	Authority directory.ShardID
	// Destinations are written after it.
	Destinations []directory.ShardID
	// Filter, unless empty, is an SQL condition over the key columns: only rows that satisfy it are mirrored.
	Filter string
	// Guarded: nothing but mirrored writes may change the table on the destinations.
	Guarded bool
}

// Of gives the mirrors of a map: its reference tables.
func Of(m *directory.Map) []Mirror {
	var all []Mirror
	for i := range m.Tables {
		if t := &m.Tables[i]; t.Kind == directory.TableReference {
			all = append(all, OfTable(m, t))
		}
	}
	return all
}

// OfTable is the mirror of a reference table.
func OfTable(m *directory.Map, t *directory.Table) Mirror {
	mirror := Mirror{ID: t.Mirror, Table: t.Name, Key: t.Key, Authority: t.Shard, Guarded: true}
	for _, shard := range m.ShardsOf(t) {
		if shard != t.Shard {
			mirror.Destinations = append(mirror.Destinations, shard)
		}
	}
	return mirror
}

// Destinations gives where the mirror of that ID is written: none if the map does not have it any more.
func Destinations(m *directory.Map, id string) []directory.ShardID {
	for i := range m.Tables {
		if t := &m.Tables[i]; t.Kind == directory.TableReference && t.Mirror == id {
			return OfTable(m, t).Destinations
		}
	}
	return nil
}

// The names of the triggers that Install makes.
const (
	captureTrigger  = "shardyard_capture"
	truncateTrigger = "shardyard_capture_truncate"
	guardTrigger    = "shardyard_guard"
)

// InstallSource are the statements, for the service role, that begin the capture on the authority. They wait
// for the table's writers.
func (m Mirror) InstallSource() []string {
	arguments := fmt.Sprintf("(%s, %s)", quoteLiteral(m.ID), quoteLiteral(m.keyQuery()))
	return append(m.register(true),
		fmt.Sprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION shardyard.capture%s", captureTrigger, m.Table, arguments),
		fmt.Sprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", m.Table, captureTrigger),
		fmt.Sprintf("CREATE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION shardyard.capture%s", truncateTrigger, m.Table, arguments),
		fmt.Sprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", m.Table, truncateTrigger),
	)
}

// RemoveSource are the statements that end the capture.
func (m Mirror) RemoveSource() []string {
	return []string{
		fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", captureTrigger, m.Table),
		fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", truncateTrigger, m.Table),
		"DELETE FROM shardyard.mirror WHERE id = " + quoteLiteral(m.ID),
		"DELETE FROM shardyard.change WHERE mirror = " + quoteLiteral(m.ID),
	}
}

// InstallCopy are the statements that make a destination's table a mirror.
func (m Mirror) InstallCopy() []string {
	statements := m.register(false)
	if m.Guarded {
		statements = append(statements, fmt.Sprintf("CREATE TRIGGER %s BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION shardyard.mirror_guard()",
			guardTrigger, m.Table))
	}
	return statements
}

// register enters the mirror on a shard; what is left there of tables that were dropped goes.
func (m Mirror) register(source bool) []string {
	keys := make([]string, len(m.Key))
	for i, column := range m.Key {
		keys[i] = quoteLiteral(column)
	}
	return []string{
		"DELETE FROM shardyard.mirror m WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.relation)",
		fmt.Sprintf("INSERT INTO shardyard.mirror (id, relation, source, key) VALUES (%s, %s::pg_catalog.regclass, %t, ARRAY[%s]::text[])",
			quoteLiteral(m.ID), quoteLiteral(m.Table.String()), source, strings.Join(keys, ", ")),
	}
}

// keyQuery makes the key of a row $1, by the output functions of its types and not by casts, which may be the
// application's.
func (m Mirror) keyQuery() string {
	parts := make([]string, len(m.Key))
	for i, column := range m.Key {
		parts[i] = "pg_catalog.format('%s', r." + directory.QuoteIdentifier(column) + ")"
	}
	query := "SELECT ARRAY[" + strings.Join(parts, ", ") + "] FROM (SELECT ($1).*) r"
	if m.Filter != "" {
		query += " WHERE " + m.Filter
	}
	return query
}

// IsTrigger reports whether a trigger of that name is one of this package's.
func IsTrigger(name string) bool {
	return slices.Contains([]string{captureTrigger, truncateTrigger, guardTrigger}, name)
}

// CheckQuery tells, on the authority, whether the capture of the table named by $1 stands and fires.
const CheckQuery = `SELECT pg_catalog.count(*) = 2 FROM pg_catalog.pg_trigger t
	WHERE t.tgrelid = $1::text::pg_catalog.regclass AND t.tgname IN ('` + captureTrigger + `', '` + truncateTrigger + `') AND t.tgenabled = 'A'`

func quoteLiteral(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
