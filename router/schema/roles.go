package schema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// rolesQuery prints, for every role of ours, the statement that makes it: attributes and the password's
// verifier, so that the same clients log in everywhere.
const rolesQuery = `
SELECT r.rolname::text,
       pg_catalog.format('CREATE ROLE %I', r.rolname)
       || CASE WHEN r.rolsuper THEN ' SUPERUSER' ELSE '' END || CASE WHEN r.rolinherit THEN '' ELSE ' NOINHERIT' END
       || CASE WHEN r.rolcreaterole THEN ' CREATEROLE' ELSE '' END || CASE WHEN r.rolcreatedb THEN ' CREATEDB' ELSE '' END
       || CASE WHEN r.rolcanlogin THEN ' LOGIN' ELSE '' END || CASE WHEN r.rolreplication THEN ' REPLICATION' ELSE '' END
       || CASE WHEN r.rolbypassrls THEN ' BYPASSRLS' ELSE '' END
       || pg_catalog.format(' CONNECTION LIMIT %s', r.rolconnlimit)
       || CASE WHEN r.rolpassword IS NULL THEN '' ELSE pg_catalog.format(' PASSWORD %L', r.rolpassword) END
       || CASE WHEN r.rolvaliduntil IS NULL THEN '' ELSE pg_catalog.format(' VALID UNTIL %L', r.rolvaliduntil) END
FROM pg_catalog.pg_authid r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname`

const membershipsQuery = `
SELECT g.rolname::text, u.rolname::text,
       pg_catalog.format('GRANT %I TO %I', g.rolname, u.rolname) || CASE WHEN m.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END
FROM pg_catalog.pg_auth_members m
JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
ORDER BY 1, 2`

const roleSettingsQuery = `
SELECT r.rolname::text, pg_catalog.format('ALTER ROLE %I SET %s TO %s', r.rolname, pg_catalog.split_part(c.setting, '=', 1),
    CASE WHEN pg_catalog.split_part(c.setting, '=', 1) IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries')
         THEN pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1)
         ELSE pg_catalog.quote_literal(pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1)) END)
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(setting)
WHERE s.setdatabase = 0 ORDER BY 1, 2`

// copyRoles brings the roles of home that are missing on conn's server, with attributes, verifiers,
// settings and memberships. Roles that exist there are left as they are.
func copyRoles(ctx context.Context, home, conn *pgx.Conn) error {
	var there []string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.array_agg(rolname::text) FROM pg_catalog.pg_roles").Scan(&there); err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	known := make(map[string]bool, len(there))
	for _, name := range there {
		known[name] = true
	}
	missing := make(map[string]bool)
	run := func(query string, wanted func(names []string) bool) error {
		rows, err := home.Query(ctx, query)
		if err != nil {
			return err
		}
		statements, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]string, error) {
			values := make([]string, len(row.FieldDescriptions()))
			targets := make([]any, len(values))
			for i := range values {
				targets[i] = &values[i]
			}
			return values, row.Scan(targets...)
		})
		if err != nil {
			return err
		}
		for _, s := range statements {
			names, statement := s[:len(s)-1], s[len(s)-1]
			if !wanted(names) {
				continue
			}
			// Another router may be making the same role.
			if _, err := conn.Exec(ctx, statement); err != nil && !isState(err, "42710", "23505") {
				return err
			}
		}
		return nil
	}
	err := run(rolesQuery, func(names []string) bool {
		missing[names[0]] = !known[names[0]]
		return missing[names[0]]
	})
	if err != nil {
		return fmt.Errorf("copy roles: %w", err)
	}
	if err := run(membershipsQuery, func(names []string) bool { return missing[names[1]] || missing[names[0]] }); err != nil {
		return fmt.Errorf("copy role memberships: %w", err)
	}
	if err := run(roleSettingsQuery, func(names []string) bool { return missing[names[0]] }); err != nil {
		return fmt.Errorf("copy role settings: %w", err)
	}
	return nil
}

// SyncRoles brings the roles of the home shard that other shards of a database lack. Routers call it when a
// role cannot log in on a shard, and after CREATE ROLE.
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
