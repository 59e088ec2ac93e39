package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/migrations"
	"github.com/shardyard/shardyard/router/pgerr"
)

// maintenance is the database that exists on every server.
const maintenance = "postgres"

// Join makes a shard fit to serve a database: it creates the database where it is missing, with the home
// shard's encoding and locale, applies the migrations, and brings the roles of the home shard that the
// shard lacks. It may be repeated at any time, by several routers at once.
func (p *Performer) Join(ctx context.Context, database string, shard directory.ShardID) error {
	m, err := p.emptyMap(ctx, database)
	if err != nil {
		return err
	}
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, home)
	return p.join(ctx, m, home, shard)
}

func (p *Performer) join(ctx context.Context, m *directory.Map, home *pgx.Conn, id directory.ShardID) error {
	shard, ok := m.Shard(id)
	if !ok {
		return pgerr.Newf("42704", "shard %q does not exist", id)
	}
	if id != m.Home {
		if err := p.createDatabase(ctx, m, home, shard); err != nil {
			return err
		}
	}
	conn, err := p.dial(ctx, m, id, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, conn)
	if err := migrations.Apply(ctx, conn.Config()); err != nil {
		return fmt.Errorf("migrate shard %s: %w", id, err)
	}
	if id == m.Home {
		return createWrapper(ctx, conn)
	}
	if err := checkCompatible(ctx, home, conn, id); err != nil {
		return err
	}
	if err := copyRoles(ctx, home, conn); err != nil {
		return err
	}
	return copyDatabaseSettings(ctx, home, conn)
}

// createDatabase creates the map's database on a shard as it is on the home shard.
func (p *Performer) createDatabase(ctx context.Context, m *directory.Map, home *pgx.Conn, shard *directory.Shard) error {
	conn, err := p.config.Dial(ctx, *shard, maintenance)
	if err != nil {
		return fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer p.config.GiveBack(ctx, conn)
	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1)", m.Database).Scan(&exists)
	if err != nil || exists {
		return err
	}
	if err := copyRoles(ctx, home, conn); err != nil {
		return err
	}
	var create string
	err = home.QueryRow(ctx, `
		SELECT pg_catalog.format('CREATE DATABASE %I TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L',
			    d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype)
		    || CASE j->>'datlocprovider' WHEN 'i' THEN pg_catalog.format(' LOCALE_PROVIDER icu ICU_LOCALE %L', coalesce(j->>'daticulocale', j->>'datlocale'))
		                                 WHEN 'b' THEN pg_catalog.format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', j->>'datlocale')
		                                 WHEN 'c' THEN ' LOCALE_PROVIDER libc' ELSE '' END
		FROM pg_catalog.pg_database d CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(d) AS j) x
		WHERE d.datname = pg_catalog.current_database()`).Scan(&create)
	if err != nil {
		return fmt.Errorf("describe database %s: %w", m.Database, err)
	}
	if _, err := conn.Exec(ctx, create); err != nil && !isState(err, "42P04", "23505") {
		return fmt.Errorf("create database %s on shard %s: %w", m.Database, shard.ID, err)
	}
	grants, err := readPrinted(ctx, home, databaseGrantsQuery)
	if err != nil {
		return fmt.Errorf("read who may use database %s: %w", m.Database, err)
	}
	for _, p := range grants {
		if _, err := conn.Exec(ctx, p.statement); err != nil {
			return fmt.Errorf("grant database %s on shard %s: %w", m.Database, shard.ID, err)
		}
	}
	return nil
}

// databaseGrantsQuery prints what gives a new database the comment, the limit and the privileges of the home shard's; it
// has the usual ones.
const databaseGrantsQuery = `
SELECT ARRAY[''], x.statement
FROM pg_catalog.pg_database d CROSS JOIN LATERAL (
    SELECT 1, pg_catalog.format('COMMENT ON DATABASE %I IS %L', d.datname, pg_catalog.shobj_description(d.oid, 'pg_database'))
    WHERE pg_catalog.shobj_description(d.oid, 'pg_database') IS NOT NULL
    UNION ALL SELECT 2, pg_catalog.format('ALTER DATABASE %I CONNECTION LIMIT %s', d.datname, d.datconnlimit) WHERE d.datconnlimit >= 0
    UNION ALL SELECT 3, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC', d.datname) WHERE d.datacl IS NOT NULL
    UNION ALL SELECT 4, pg_catalog.format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, d.datname,
        coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC')) || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM pg_catalog.aclexplode(d.datacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
) x(number, statement)
WHERE d.datname = pg_catalog.current_database() ORDER BY x.number, x.statement`

// checkCompatible refuses a shard whose database would give other answers than the home shard's.
func checkCompatible(ctx context.Context, home, conn *pgx.Conn, id directory.ShardID) error {
	const query = `SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
		pg_catalog.current_setting('server_version_num')::int4 / 10000,
		pg_catalog.current_setting('max_prepared_transactions')::int4
		FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`
	type properties struct {
		encoding, collate, ctype string
		major                    int32
		prepared                 int32
	}
	read := func(c *pgx.Conn) (p properties, err error) {
		err = c.QueryRow(ctx, query).Scan(&p.encoding, &p.collate, &p.ctype, &p.major, &p.prepared)
		return p, err
	}
	want, err := read(home)
	if err != nil {
		return fmt.Errorf("read properties of the home shard's database: %w", err)
	}
	got, err := read(conn)
	if err != nil {
		return fmt.Errorf("read properties of the database on shard %s: %w", id, err)
	}
	if got.prepared == 0 || want.prepared == 0 {
		return pgerr.New("55000", "prepared transactions are disabled on a shard").
			WithDetail(fmt.Sprintf("max_prepared_transactions is %d on the home shard and %d on shard %s.", want.prepared, got.prepared, id)).
			WithHint("Set max_prepared_transactions to at least max_connections on every shard and restart it.")
	}
	got.prepared = want.prepared
	if got != want {
		return pgerr.Newf("55000", "the database on shard %q differs from the home shard's", id).
			WithDetail(fmt.Sprintf("Home shard: encoding %s, collation %s, character type %s, version %d; shard %s: %s, %s, %s, %d.",
				want.encoding, want.collate, want.ctype, want.major, id, got.encoding, got.collate, got.ctype, got.major)).
			WithHint("Drop the database on that shard if it is empty: it is created anew as it has to be.")
	}
	return nil
}

// register makes sure that the database has a map: the first time it joins every shard of the cluster.
func (p *Performer) register(ctx context.Context, database string) (*directory.Map, error) {
	m, err := p.config.Store.LoadMap(ctx, database)
	if err == nil || !errors.Is(err, etcd.ErrNotFound) {
		return m, err
	}
	if m, err = p.emptyMap(ctx, database); err != nil {
		return nil, err
	}
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return nil, err
	}
	defer p.giveBack(ctx, home)
	for _, shard := range m.Shards {
		if err := p.join(ctx, m, home, shard.ID); err != nil {
			return nil, fmt.Errorf("join shard %s to database %s: %w", shard.ID, database, err)
		}
	}
	if err := p.config.Store.CreateMap(ctx, m); err != nil && !errors.Is(err, etcd.ErrExists) {
		return nil, fmt.Errorf("create map of database %s: %w", database, err)
	}
	return p.config.Store.LoadMap(ctx, database)
}

// emptyMap is the map of a database in which nothing is sharded yet.
func (p *Performer) emptyMap(ctx context.Context, database string) (*directory.Map, error) {
	snapshot, err := p.config.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	cluster := snapshot.Cluster
	m, err := directory.NewMap(directory.Map{
		ClusterID: cluster.ID, Database: database, Epoch: 1, Shards: cluster.Shards, Home: cluster.Home,
	})
	if err != nil {
		return nil, fmt.Errorf("describe database %s: %w", database, err)
	}
	return m, nil
}

func isState(err error, states ...string) bool {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return false
	}
	for _, state := range states {
		if server.Code == state {
			return true
		}
	}
	return false
}
