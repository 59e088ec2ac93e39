package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
)

var cluster *devcluster.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{Shards: 1}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// databases counts them, so that a test can run more than once.
var databases atomic.Int64

// fresh makes a database and gives how to reach it and a connection to it.
func fresh(t *testing.T, name string) (*pgx.ConnConfig, *pgx.Conn) {
	t.Helper()
	name = fmt.Sprintf("%s_%d", name, databases.Add(1))
	must(t, cluster.CreateDatabase(t.Context(), name))
	config, err := pgx.ParseConfig(cluster.ConnString(0, name))
	must(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close(context.Background())) })
	return config, conn
}

func wantVersion(t *testing.T, conn *pgx.Conn, want uint) {
	t.Helper()
	version, err := Version(t.Context(), conn)
	must(t, err)
	if version != want {
		t.Fatalf("version %d, want %d", version, want)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("error is %v, want SQLSTATE %s", err, code)
	}
}

func latest(t *testing.T) uint {
	t.Helper()
	version, err := Latest()
	must(t, err)
	if version < 1 {
		t.Fatal("there are no migrations")
	}
	return version
}

func TestApplyAndRevert(t *testing.T) {
	config, conn := fresh(t, "apply_revert")
	ctx := t.Context()
	wantVersion(t, conn, 0)
	for range 2 {
		must(t, Apply(ctx, config))
		wantVersion(t, conn, latest(t))
	}
	var floor int64
	must(t, conn.QueryRow(ctx, "SELECT floor FROM shardyard.epoch").Scan(&floor))
	if floor != 0 {
		t.Errorf("the first floor is %d", floor)
	}
	_, err := conn.Exec(ctx, "INSERT INTO shardyard.epoch VALUES (true, 1)")
	wantCode(t, err, "23505")
	_, err = conn.Exec(ctx, "INSERT INTO shardyard.epoch VALUES (false, 1)")
	wantCode(t, err, "23514")
	_, err = conn.Exec(ctx, "UPDATE shardyard.epoch SET floor = -1")
	wantCode(t, err, "23514")

	must(t, Revert(ctx, config))
	wantVersion(t, conn, 0)
	var left bool
	must(t, conn.QueryRow(ctx, "SELECT to_regnamespace('shardyard') IS NOT NULL").Scan(&left))
	if left {
		t.Error("the schema is left")
	}
	must(t, Revert(ctx, config))
	must(t, Apply(ctx, config))
	wantVersion(t, conn, latest(t))
}

// TestApplyFromSeveralProcesses: all succeed, and the floor that one raises meanwhile stays.
func TestApplyFromSeveralProcesses(t *testing.T) {
	config, conn := fresh(t, "concurrent")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := Apply(t.Context(), config); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	wantVersion(t, conn, latest(t))
	_, err := conn.Exec(t.Context(), "UPDATE shardyard.epoch SET floor = 7")
	must(t, err)
	must(t, Apply(t.Context(), config))
	var rows, floor int64
	must(t, conn.QueryRow(t.Context(), "SELECT count(*), max(floor) FROM shardyard.epoch").Scan(&rows, &floor))
	if rows != 1 || floor != 7 {
		t.Errorf("%d rows, floor %d", rows, floor)
	}
}

func TestApplyWaitsNoLongerThanItsContext(t *testing.T) {
	config, conn := fresh(t, "waits")
	_, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock($1::int4, $2::int4)", lockClass, lockObject)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := Apply(ctx, config); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	wantVersion(t, conn, 0)
}

// TestApplyAfterACrash: a version left dirty, before or after its statements ran, is run again.
func TestApplyAfterACrash(t *testing.T) {
	for name, statement := range map[string]string{
		"after":  "UPDATE shardyard.schema_migrations SET dirty = true",
		"before": "DROP TABLE shardyard.epoch; UPDATE shardyard.schema_migrations SET version = 1, dirty = true",
	} {
		t.Run(name, func(t *testing.T) {
			config, conn := fresh(t, "crash_"+name)
			must(t, Apply(t.Context(), config))
			_, err := conn.Exec(t.Context(), statement)
			must(t, err)
			wantVersion(t, conn, 0)
			must(t, Apply(t.Context(), config))
			wantVersion(t, conn, latest(t))
			var floor int64
			must(t, conn.QueryRow(t.Context(), "SELECT floor FROM shardyard.epoch").Scan(&floor))
		})
	}
}

// TestApplyToAnOlderSchema: one that an older release made is brought up to date, whatever version it has.
func TestApplyToAnOlderSchema(t *testing.T) {
	config, conn := fresh(t, "older")
	must(t, Apply(t.Context(), config))
	undos, err := fs.Glob(Files, "*.down.sql")
	must(t, err)
	for version := len(undos) - 1; version > 0; version-- {
		for i := len(undos) - 1; i >= version; i-- {
			undo, err := fs.ReadFile(Files, undos[i])
			must(t, err)
			_, err = conn.Exec(t.Context(), string(undo))
			must(t, err)
		}
		_, err := conn.Exec(t.Context(), fmt.Sprintf("UPDATE shardyard.schema_migrations SET version = %d", version))
		must(t, err)
		must(t, Apply(t.Context(), config))
		wantVersion(t, conn, latest(t))
		var sealed bool
		must(t, conn.QueryRow(t.Context(), `SELECT count(*) = 1 AND bool_and(pronargs = 3) FROM pg_proc
			WHERE pronamespace = 'shardyard'::regnamespace AND proname = 'decide'`).Scan(&sealed))
		if !sealed {
			t.Errorf("after version %d shardyard.decide is not the one with a seal", version)
		}
	}
}

// TestApplicationsMayOnlyReadTheFloor: an ordinary role, and one that owns the database too.
func TestApplicationsMayOnlyReadTheFloor(t *testing.T) {
	config, conn := fresh(t, "rights")
	ctx := t.Context()
	must(t, Apply(ctx, config))
	_, err := conn.Exec(ctx, fmt.Sprintf("CREATE ROLE of_%[1]s; ALTER DATABASE %[1]s OWNER TO of_%[1]s; SET ROLE of_%[1]s", config.Database))
	must(t, err)
	var floor int64
	must(t, conn.QueryRow(ctx, "SELECT floor FROM shardyard.epoch").Scan(&floor))
	for _, statement := range []string{
		"UPDATE shardyard.epoch SET floor = 0", "DELETE FROM shardyard.epoch", "TRUNCATE shardyard.epoch",
		"INSERT INTO shardyard.epoch VALUES (true, 0)", "SELECT floor FROM shardyard.epoch FOR UPDATE",
		"DO $$ BEGIN LOCK TABLE shardyard.epoch IN EXCLUSIVE MODE; END $$",
		"CREATE TABLE shardyard.mine ()", "DROP TABLE shardyard.epoch", "DROP SCHEMA shardyard CASCADE",
		"SELECT version FROM shardyard.schema_migrations", "UPDATE shardyard.schema_migrations SET version = 0",
	} {
		_, err := conn.Exec(ctx, statement)
		wantCode(t, err, "42501")
	}
}
