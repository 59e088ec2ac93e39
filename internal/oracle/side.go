package oracle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// side is one of the two: a connection to the plain Postgres or to a router.
type side struct {
	name       string
	conn       *pgx.Conn
	catalog    *pgx.Conn // for look-ups, so that they disturb no transaction
	notices    []string  // of the statement that is running
	statements int       // prepared so far
	types      map[uint32]pgType
	origins    map[origin]string
}

// pgType is what is needed to name a type and to look inside its binary values.
type pgType struct {
	name    string
	kind    byte   // pg_type.typtype
	element uint32 // of a true array
}

// origin is the table column that a result column comes from.
type origin struct {
	table  uint32
	number uint16
}

func connect(ctx context.Context, name, connString string) (_ *side, err error) {
	s := &side{name: name, types: map[uint32]pgType{}, origins: map[origin]string{}}
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("parse connection string of %s: %w", name, err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		s.notices = append(s.notices, fmt.Sprintf("%s %s: %s", n.Severity, n.Code, n.Message))
	}
	if s.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	if s.catalog, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", name, err), s.conn.Close(ctx))
	}
	return s, nil
}

func (s *side) close(ctx context.Context) {
	_ = s.conn.Close(ctx) // the test is over either way
	_ = s.catalog.Close(ctx)
}

// typeOf looks a type up. User types have other OIDs on the two sides, so types are
// compared by name.
func (s *side) typeOf(ctx context.Context, oid uint32) (pgType, error) {
	if t, ok := s.types[oid]; ok {
		return t, nil
	}
	var t pgType
	var kind string
	err := s.catalog.QueryRow(ctx, fmt.Sprintf(
		`WITH RECURSIVE base AS ( -- the type beneath a domain
		   SELECT oid, typtype, typbasetype, typcategory, typelem FROM pg_catalog.pg_type WHERE oid = %d
		   UNION ALL SELECT t.oid, t.typtype, t.typbasetype, t.typcategory, t.typelem FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typbasetype)
		 SELECT pg_catalog.format_type(%[1]d, NULL), typtype::text, CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END
		   FROM base WHERE typbasetype = 0`, oid)).Scan(&t.name, &kind, &t.element)
	if err != nil {
		return t, fmt.Errorf("look up type %d on %s: %w", oid, s.name, err)
	}
	t.kind = kind[0]
	s.types[oid] = t
	return t, nil
}

// typeNamed is the OID of a type on this side; 0 for "".
func (s *side) typeNamed(ctx context.Context, name string) (oid uint32, err error) {
	if name == "" {
		return 0, nil
	}
	err = s.catalog.QueryRow(ctx, fmt.Sprintf(`SELECT '%s'::pg_catalog.regtype::oid`, name)).Scan(&oid)
	if err != nil {
		return 0, fmt.Errorf("look up type %s on %s: %w", name, s.name, err)
	}
	return oid, nil
}

// column describes a result column, "name type typmod", and the table's column that it comes from, "-" for none.
func (s *side) column(ctx context.Context, field pgconn.FieldDescription) (description, from string, err error) {
	t, err := s.typeOf(ctx, field.DataTypeOID)
	if err != nil {
		return "", "", err
	}
	from, err = s.originOf(ctx, origin{field.TableOID, field.TableAttributeNumber})
	if err != nil {
		return "", "", err
	}
	return fmt.Sprintf("%s %s %d", field.Name, t.name, field.TypeModifier), from, nil
}

func (s *side) originOf(ctx context.Context, o origin) (string, error) {
	if o.table == 0 {
		return "-", nil
	}
	if name, ok := s.origins[o]; ok {
		return name, nil
	}
	var name string
	err := s.catalog.QueryRow(ctx, fmt.Sprintf(
		`SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		  WHERE c.oid = %d`, o.table)).Scan(&name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		name = "unknown" // dropped or created in a transaction still open
	case err != nil:
		return "", fmt.Errorf("look up table %d on %s: %w", o.table, s.name, err)
	default:
		if strings.HasPrefix(name, "pg_temp_") { // numbered by the backend
			_, relation, _ := strings.Cut(name, ".")
			name = "pg_temp." + relation
		}
		name = fmt.Sprintf("%s.%d", name, o.number)
		s.origins[o] = name
	}
	return name, nil
}
