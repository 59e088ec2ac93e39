package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// client stands for a session with an open transaction: it has a connection to each shard that it uses, and
// commits in two phases.
type client struct {
	b     *bench
	tx    *Transaction
	user  string
	conns map[directory.ShardID]*pgx.Conn
	sql   string
}

func (b *bench) begin(p *Performer, user string) *client {
	return &client{b: b, tx: p.Begin(), user: user, conns: make(map[directory.ShardID]*pgx.Conn)}
}

func (c *client) links() Links {
	return Links{
		Cancellable: func(ctx context.Context) (context.Context, func()) { return ctx, func() {} },
		Lend: func(ctx context.Context, shard directory.ShardID, use func(*pgx.Conn) error) error {
			conn, err := c.on(ctx, shard)
			if err != nil {
				return err
			}
			return use(conn)
		},
		Run: func(ctx context.Context, shard directory.ShardID, _ bool) error {
			conn, err := c.on(ctx, shard)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, c.sql, pgx.QueryExecModeSimpleProtocol)
			return err
		},
	}
}

func (c *client) on(ctx context.Context, id directory.ShardID) (*pgx.Conn, error) {
	if conn := c.conns[id]; conn != nil {
		return conn, nil
	}
	for _, shard := range cluster.Shards() {
		if shard.ID == id {
			conn, err := dialAs(ctx, shard, c.b.database, c.user)
			if err != nil {
				return nil, err
			}
			c.conns[id] = conn
			_, err = conn.Exec(ctx, "BEGIN")
			return conn, err
		}
	}
	return nil, fmt.Errorf("no shard %s", id)
}

// run runs a statement; after an error the transaction is rolled back, after a crash its connections are closed.
func (c *client) run(tag, sql string, tables ...string) error {
	c.sql = sql
	m, err := c.tx.Map(c.b.t.Context(), c.links(), c.b.load())
	if err != nil {
		return c.failed(err)
	}
	r := Request{SQL: sql, Tag: tag, Database: c.b.database, User: c.user, SearchPath: []string{"$user", "public"}, Lacking: true}
	r.Alters = strings.HasPrefix(sql, "CREATE OR REPLACE") || strings.HasPrefix(tag, "ALTER") && len(tables) == 0
	for _, name := range tables {
		r.Tables = append(r.Tables, directory.TableName{Schema: "public", Name: name})
	}
	return c.failed(c.tx.Run(c.b.t.Context(), c.links(), m, r, 0))
}

func (c *client) failed(err error) error {
	if err == nil {
		return nil
	}
	c.close()
	if !errors.Is(err, errCrash) {
		c.tx.RolledBack(c.b.t.Context())
	}
	return err
}

func (c *client) close() {
	for id, conn := range c.conns {
		_ = conn.Close(context.WithoutCancel(c.b.t.Context()))
		delete(c.conns, id)
	}
}

func (c *client) gid(shard directory.ShardID) string { return "test:" + c.tx.id + ":" + string(shard) }

func (c *client) each(sql func(shard directory.ShardID) string) error {
	for _, shard := range c.tx.shards {
		if _, err := c.conns[shard].Exec(c.b.t.Context(), sql(shard)); err != nil {
			return err
		}
		if err := c.tx.p.reached(strings.Fields(sql(shard))[0] + " " + string(shard)); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) commit() error {
	if err := c.tx.Note(c.b.t.Context(), c.links()); err != nil {
		return c.failed(err)
	}
	if err := c.each(func(shard directory.ShardID) string { return "PREPARE TRANSACTION " + quoteLiteral(c.gid(shard)) }); err != nil {
		return c.failed(err)
	}
	if err := c.each(func(shard directory.ShardID) string { return "COMMIT PREPARED " + quoteLiteral(c.gid(shard)) }); err != nil {
		return c.failed(err)
	}
	c.close()
	c.tx.Committed(c.b.t.Context())
	return nil
}

// resolve is what the recovery of two-phase commits does with what the client left prepared.
func (c *client) resolve(verb string) {
	c.b.t.Helper()
	for i, shard := range cluster.Shards() {
		conn := c.b.connect(i, c.b.database)
		var there bool
		if err := conn.QueryRow(c.b.t.Context(), "SELECT EXISTS (SELECT 1 FROM pg_prepared_xacts WHERE gid = $1)", c.gid(shard.ID)).Scan(&there); err != nil {
			c.b.t.Fatal(err)
		}
		if there {
			c.b.exec(conn, verb+" PREPARED "+quoteLiteral(c.gid(shard.ID)))
		}
	}
}
