package router_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// A named statement whose description was lost with a shard is not there afterwards: drivers take its
// preparation for failed and prepare it again under the same name.
func TestPreparationLostWithTheShard(t *testing.T) {
	b := newBed(t, 1)
	other, conn := b.connect(0), b.connect(0)
	mustSimple(t, other, "CREATE TABLE t (k int PRIMARY KEY)")
	const sql = "SELECT k FROM t WHERE k = $1"
	prepare := func(c *pgconn.PgConn) error {
		_, err := c.Prepare(t.Context(), "mine", sql, nil)
		return err
	}
	// The server's connection has the statement already, and is in this session's hands: what is lost is the answer
	// to Describe alone.
	if err := prepare(other.PgConn()); err != nil {
		t.Fatal(err)
	}
	mustSimple(t, other, "SELECT 1")
	mustSimple(t, conn, "BEGIN")
	mustSimple(t, conn, "SELECT 1")
	if err := cluster.PauseShard(0); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- prepare(conn.PgConn()) }()
	if err := cluster.KillShard(0); err != nil {
		t.Fatal(err)
	}
	err := <-failed
	if restarted := cluster.StartShard(t.Context(), 0); restarted != nil {
		t.Fatal(restarted)
	}
	var reported *pgconn.PgError
	if !errors.As(err, &reported) || reported.Code != "08006" {
		t.Fatalf("got %v, want 08006", err)
	}
	mustSimple(t, conn, "ROLLBACK")
	if err := prepare(conn.PgConn()); err != nil {
		t.Fatalf("prepare again: %v", err)
	}
}
