package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// rolesQuery prints every role of ours: what makes it, its attributes with the password's verifier, so that the same
// clients log in everywhere, and its comment.
const rolesQuery = `
SELECT r.rolname::text, pg_catalog.quote_ident(r.rolname),
       CASE WHEN r.rolsuper THEN ' SUPERUSER' ELSE ' NOSUPERUSER' END || CASE WHEN r.rolinherit THEN ' INHERIT' ELSE ' NOINHERIT' END
       || CASE WHEN r.rolcreaterole THEN ' CREATEROLE' ELSE ' NOCREATEROLE' END || CASE WHEN r.rolcreatedb THEN ' CREATEDB' ELSE ' NOCREATEDB' END
       || CASE WHEN r.rolcanlogin THEN ' LOGIN' ELSE ' NOLOGIN' END || CASE WHEN r.rolreplication THEN ' REPLICATION' ELSE ' NOREPLICATION' END
       || CASE WHEN r.rolbypassrls THEN ' BYPASSRLS' ELSE ' NOBYPASSRLS' END
       || pg_catalog.format(' CONNECTION LIMIT %s', r.rolconnlimit)
       || CASE WHEN r.rolpassword IS NULL THEN ' PASSWORD NULL' ELSE pg_catalog.format(' PASSWORD %L', r.rolpassword) END
       || CASE WHEN r.rolvaliduntil IS NULL THEN '' ELSE pg_catalog.format(' VALID UNTIL %L', r.rolvaliduntil) END,
       r.rolvaliduntil IS NULL, r.rolsuper, coalesce(pg_catalog.quote_literal(pg_catalog.shobj_description(r.oid, 'pg_authid')), '')
FROM pg_catalog.pg_authid r WHERE r.rolname !~ '^pg_' AND ($1 = '' OR r.rolname = $1) ORDER BY r.rolname`

// roleRow is a row of rolesQuery.
type roleRow struct {
	name, quoted, options string
	forever, super        bool
	comment               string // as a literal
}

// create are the statements that make the role.
func (r *roleRow) create() []string {
	statements := []string{"CREATE ROLE " + r.quoted + r.options}
	if r.comment != "" {
		statements = append(statements, "COMMENT ON ROLE "+r.quoted+" IS "+r.comment)
	}
	return statements
}

// alter is the statement that gives a role of this name the attributes.
func (r *roleRow) alter() string {
	if r.forever {
		return "ALTER ROLE " + r.quoted + r.options + " VALID UNTIL 'infinity'"
	}
	return "ALTER ROLE " + r.quoted + r.options
}

// readRoles reads the roles of a server, or the one of that name.
func readRoles(ctx context.Context, conn *pgx.Conn, name string) ([]roleRow, error) {
	rows, err := conn.Query(ctx, rolesQuery, name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r roleRow, err error) {
		return r, row.Scan(&r.name, &r.quoted, &r.options, &r.forever, &r.super, &r.comment)
	})
}

// membershipsQuery prints the memberships; since Postgres 16 each says by itself what it gives.
const membershipsQuery = `
SELECT ARRAY[g.rolname::text, u.rolname::text],
       pg_catalog.format('GRANT %I TO %I', g.rolname, u.rolname) || CASE WHEN m.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END
       || CASE WHEN j ? 'inherit_option' THEN CASE WHEN m.admin_option THEN ', ' ELSE ' WITH ' END
              || pg_catalog.format('INHERIT %s, SET %s', j->>'inherit_option', j->>'set_option') ELSE '' END
FROM pg_catalog.pg_auth_members m CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(m) AS j) x
JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
ORDER BY 1, 2`

// settingStatement prints what sets one entry of pg_db_role_setting, of the row s, for the object that is printed first.
const settingStatement = `pg_catalog.quote_ident(pg_catalog.split_part(c.setting, '=', 1)) || ' TO ' ||
    CASE WHEN pg_catalog.split_part(c.setting, '=', 1) IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries')
         THEN pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1)
         ELSE pg_catalog.quote_literal(pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1)) END
FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(setting) `

const roleSettingsQuery = `SELECT ARRAY[coalesce(r.rolname::text, '')], 'ALTER ROLE ' || coalesce(pg_catalog.quote_ident(r.rolname), 'ALL') || ' SET ' || ` +
	settingStatement + `WHERE s.setdatabase = 0 ORDER BY 1, 2`

// databaseSettingsQuery prints the settings of the database, and of roles in it.
const databaseSettingsQuery = `SELECT ARRAY[coalesce(r.rolname::text, ''), pg_catalog.split_part(c.setting, '=', 1)], CASE WHEN s.setrole = 0
    THEN pg_catalog.format('ALTER DATABASE %I SET ', pg_catalog.current_database())
    ELSE pg_catalog.format('ALTER ROLE %I IN DATABASE %I SET ', r.rolname, pg_catalog.current_database()) END || ` +
	settingStatement + `WHERE s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) ORDER BY 1, 2`

// parameterGrantsQuery prints who may set parameters of the server.
const parameterGrantsQuery = `
SELECT ARRAY[coalesce(r.rolname::text, '')], pg_catalog.format('GRANT %s ON PARAMETER %I TO %s', a.privilege_type, p.parname,
    coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC')) || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_catalog.pg_parameter_acl p CROSS JOIN LATERAL pg_catalog.aclexplode(p.paracl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE a.grantee <> 10 ORDER BY 1, 2`

// printed is a row of these queries: the names that it is about, and a statement.
type printed struct {
	names     []string
	statement string
}

func readPrinted(ctx context.Context, conn *pgx.Conn, query string) ([]printed, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p printed, err error) {
		return p, row.Scan(&p.names, &p.statement)
	})
}

// copyRoles brings the roles of home that are missing on conn's server, with attributes, verifiers, comments,
// settings, memberships and what they may set. Roles that exist there are left as they are.
func copyRoles(ctx context.Context, home, conn *pgx.Conn) error {
	var there []string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.array_agg(rolname::text) FROM pg_catalog.pg_roles").Scan(&there); err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	known := make(map[string]bool, len(there))
	for _, name := range there {
		known[name] = true
	}
	roles, err := readRoles(ctx, home, "")
	if err != nil {
		return fmt.Errorf("read roles of the home shard: %w", err)
	}
	missing := make(map[string]bool)
	for i := range roles {
		r := &roles[i]
		if known[r.name] {
			continue
		}
		missing[r.name] = true
		if err := runAsNeeded(ctx, conn, r.create()...); err != nil {
			return fmt.Errorf("copy role %s: %w", r.name, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	for _, query := range []string{membershipsQuery, roleSettingsQuery, parameterGrantsQuery} {
		all, err := readPrinted(ctx, home, query)
		if err != nil {
			return fmt.Errorf("read roles of the home shard: %w", err)
		}
		for _, p := range all {
			concerned := false
			for _, name := range p.names {
				concerned = concerned || missing[name]
			}
			if !concerned {
				continue
			}
			if err := runAsNeeded(ctx, conn, p.statement); err != nil {
				return fmt.Errorf("copy what belongs to roles: %w", err)
			}
		}
	}
	return nil
}

// runAsNeeded runs statements that another router may be running, too.
func runAsNeeded(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil && !isState(err, "42710", "23505") {
			return err
		}
	}
	return nil
}

// copyDatabaseSettings gives the database on conn's server the settings of the home shard's that it lacks, its own and
// those of roles in it. Both connections are to that database.
func copyDatabaseSettings(ctx context.Context, home, conn *pgx.Conn) error {
	want, err := readPrinted(ctx, home, databaseSettingsQuery)
	if err != nil {
		return fmt.Errorf("read settings of the database: %w", err)
	}
	if len(want) == 0 {
		return nil
	}
	have, err := readPrinted(ctx, conn, databaseSettingsQuery)
	if err != nil {
		return fmt.Errorf("read settings of the database: %w", err)
	}
	known := make(map[[2]string]bool, len(have))
	for _, p := range have {
		known[[2]string(p.names)] = true
	}
	for _, p := range want {
		if known[[2]string(p.names)] {
			continue
		}
		if _, err := conn.Exec(ctx, p.statement); err != nil {
			return fmt.Errorf("copy settings of the database: %w", err)
		}
	}
	return nil
}

// SyncRoles brings the roles of the home shard that other shards of a database lack.
func (p *Performer) SyncRoles(ctx context.Context, database string) error {
	m, err := p.config.Store.LoadMap(ctx, database)
	if err != nil {
		return err
	}
	shards := make([]directory.ShardID, len(m.Shards))
	for i := range m.Shards {
		shards[i] = m.Shards[i].ID
	}
	return p.syncRoles(ctx, m, shards)
}

func (p *Performer) syncRoles(ctx context.Context, m *directory.Map, shards []directory.ShardID) error {
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, home)
	for _, shard := range shards {
		if shard == m.Home {
			continue
		}
		conn, err := p.dial(ctx, m, shard, "shardyard-join")
		if err != nil {
			return err
		}
		err = copyRoles(ctx, home, conn)
		p.giveBack(ctx, conn)
		if err != nil {
			return err
		}
	}
	return nil
}

// errRoleAlike says that a role is on a shard as it is on the home shard.
var errRoleAlike = errors.New("the role is as on the home shard")

// SyncRole brings one role of the home shard to a shard that does not let it in: it is made there if it is missing (with
// all others that are), else it gets the attributes and the verifier of the home shard's. A superuser that exists is left
// alone: it may be the shard's own administrator. An error also says that there was nothing to do.
func (p *Performer) SyncRole(ctx context.Context, m *directory.Map, shard directory.ShardID, role string) error {
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, home)
	conn, err := p.dial(ctx, m, shard, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, conn)
	want, err := readRoles(ctx, home, role)
	if err != nil {
		return fmt.Errorf("read role of the home shard: %w", err)
	}
	have, err := readRoles(ctx, conn, role)
	if err != nil {
		return fmt.Errorf("read role of shard %s: %w", shard, err)
	}
	switch {
	case len(want) == 0:
		return pgerr.Newf("28000", "role %q does not exist", role)
	case len(have) == 0:
		return copyRoles(ctx, home, conn)
	case want[0].super || have[0].super || have[0].options == want[0].options:
		return errRoleAlike
	}
	if _, err := conn.Exec(ctx, want[0].alter()); err != nil {
		return fmt.Errorf("bring role %s on shard %s into line: %w", role, shard, err)
	}
	return nil
}
