package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// prepareShard makes the databases that are missing and, on a new shard, burns OIDs if asked to.
func (c *Cluster) prepareShard(ctx context.Context, index int, primary *server, fresh bool) error {
	burn := fresh && c.cfg.BurnOIDs
	if len(c.cfg.Databases) == 0 && !burn {
		return nil
	}
	return primary.withSuperuser(ctx, func(conn *pgx.Conn) error {
		if burn {
			if err := burnOIDs(ctx, conn, index); err != nil {
				return err
			}
		}
		for _, name := range c.cfg.Databases {
			if err := createDatabase(ctx, conn, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// burnOIDs advances the server's OID counter, which is one for all databases, by a number of its own for each shard:
// large objects are made and removed, each of which takes one OID.
func burnOIDs(ctx context.Context, conn *pgx.Conn, index int) error {
	const step, odd = 1000, 37 // so that no multiple of a round number of objects brings two shards together
	_, err := conn.Exec(ctx, fmt.Sprintf("do $$ begin for i in 1..%d loop perform lo_unlink(lo_create(0)); end loop; end $$", index*step+index*odd))
	if err != nil {
		return fmt.Errorf("burn OIDs: %w", err)
	}
	return nil
}

// CreateDatabase creates a database on every shard where it is missing. The name must need no quoting.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	if !databaseName.MatchString(name) {
		return fmt.Errorf("create database: name %q must match %s", name, databaseName)
	}
	for _, shard := range c.shards {
		err := shard.primary.withSuperuser(ctx, func(conn *pgx.Conn) error { return createDatabase(ctx, conn, name) })
		if err != nil {
			return fmt.Errorf("create database %s on shard %s: %w", name, shard.name, err)
		}
	}
	return nil
}

func createDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func (s *server) withSuperuser(ctx context.Context, work func(*pgx.Conn) error) (err error) {
	conn, err := pgx.Connect(ctx, s.connString("postgres"))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.name, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	return work(conn)
}

func (s *server) listeningPort() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

func (s *server) endpoint() directory.Endpoint {
	return directory.Endpoint{Host: loopback, Port: s.listeningPort()}
}

func (s *server) connString(database string) string {
	address := url.URL{
		Scheme: "postgres", User: url.User(superuser), Host: s.endpoint().String(),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return address.String()
}

// connInfo is how a replica reaches this primary.
func (s *server) connInfo(application string) string {
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s sslmode=disable", loopback, s.listeningPort(), superuser, application)
}
