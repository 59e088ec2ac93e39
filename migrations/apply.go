package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// Schema is the schema that holds all bookkeeping on a shard.
	Schema = "shardyard"
	// versionTable records, inside Schema, which migrations were applied.
	versionTable = "schema_migrations"
	// lockClass and lockObject are the advisory lock under which the schema is created and changed.
	lockClass, lockObject = 1936224356, 1
	// statementTimeout bounds each migration, which knows no context.
	statementTimeout = 5 * time.Minute
)

// Apply brings the bookkeeping schema of the database that config names to the newest version. It does
// nothing when it is there already. The role must be allowed to create a schema in that database.
//
// It is safe from any number of processes at once: one after the other, under an advisory lock on the
// shard, waited for until ctx ends. It uses one connection of its own.
func Apply(ctx context.Context, config *pgx.ConnConfig) error {
	return run(ctx, config, func(m *migrate.Migrate) error {
		if err := repair(m); err != nil {
			return err
		}
		return m.Up()
	})
}

// Revert undoes every migration and drops the schema, for a shard that leaves the cluster. The floor is
// gone afterwards, so the caller must know that no router serves the database any more.
func Revert(ctx context.Context, config *pgx.ConnConfig) error {
	err := run(ctx, config, func(m *migrate.Migrate) error {
		if err := repair(m); err != nil {
			return err
		}
		return m.Down()
	})
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to drop schema %s: %w", Schema, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+Schema+" CASCADE"); err != nil {
		return fmt.Errorf("drop schema %s: %w", Schema, err)
	}
	return nil
}

// Version returns the version of the bookkeeping schema in the database of conn, 0 where there is none.
func Version(ctx context.Context, conn *pgx.Conn) (uint, error) {
	var version int64
	err := conn.QueryRow(ctx, "SELECT version FROM "+Schema+"."+versionTable+" WHERE NOT dirty").Scan(&version)
	var refused *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, nil
	case errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "3F000"):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read version of schema %s: %w", Schema, err)
	}
	return uint(version), nil
}

// Latest returns the version that Apply leads to.
func Latest() (uint, error) {
	names, err := fs.Glob(Files, "*.up.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var latest uint
	for _, name := range names {
		digits, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("read version of migration %s: %w", name, err)
		}
		latest = max(latest, uint(version))
	}
	return latest, nil
}

// run calls work with golang-migrate on one connection that holds the advisory lock.
func run(ctx context.Context, config *pgx.ConnConfig, work func(*migrate.Migrate) error) (err error) {
	own := config.Copy()
	own.RuntimeParams["search_path"] = "pg_catalog"
	own.RuntimeParams["application_name"] = "shardyard-migrations"
	db := stdlib.OpenDB(*own)
	// Invariant: one connection, so that the session lock taken by prepare covers everything after it and
	// goes with the connection however this process ends.
	db.SetMaxOpenConns(1)
	defer func() { _ = db.Close() }()
	if err := prepare(ctx, db); err != nil {
		return err
	}
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{
		DatabaseName: own.Database, SchemaName: Schema, MigrationsTable: versionTable,
		StatementTimeout: statementTimeout,
	})
	if err != nil {
		return fmt.Errorf("open version table of schema %s: %w", Schema, err)
	}
	source, err := iofs.New(Files, ".")
	if err != nil {
		return errors.Join(fmt.Errorf("read migrations: %w", err), driver.Close())
	}
	m, err := migrate.NewWithInstance("iofs", source, "pgx5", driver)
	if err != nil {
		return errors.Join(fmt.Errorf("load migrations: %w", err), source.Close(), driver.Close())
	}
	defer func() {
		sourceErr, databaseErr := m.Close()
		err = errors.Join(err, sourceErr, databaseErr)
	}()
	if err := work(m); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return fmt.Errorf("migrate schema %s of database %s: %w", Schema, own.Database, err)
	}
	return nil
}

// prepare takes the advisory lock for the life of the connection and creates the schema, in which
// golang-migrate then keeps its version table.
func prepare(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, "SELECT pg_advisory_lock($1::int4, $2::int4)", lockClass, lockObject); err != nil {
		return fmt.Errorf("lock schema %s: %w", Schema, err)
	}
	var exists bool
	if err := db.QueryRowContext(ctx, "SELECT to_regnamespace($1) IS NOT NULL", Schema).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema %s: %w", Schema, err)
	}
	if exists {
		return nil
	}
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA "+Schema); err != nil {
		return fmt.Errorf("create schema %s: %w", Schema, err)
	}
	return nil
}

// repair steps back over a version that a dead process left dirty, so that it runs again.
func repair(m *migrate.Migrate) error {
	version, dirty, err := m.Version()
	if errors.Is(err, migrate.ErrNilVersion) || (err == nil && !dirty) {
		return nil
	}
	if err != nil {
		return err
	}
	previous := int(version) - 1
	if previous == 0 {
		previous = database.NilVersion
	}
	return m.Force(previous)
}
