package backend

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func service(t *testing.T, p *Pools, database string) *pgx.Conn {
	t.Helper()
	conn, err := p.Service(testContext(t), shard(), database)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestServiceIsKept(t *testing.T) {
	p := newPools(t, nil)
	first := service(t, p, "postgres")
	pid := first.PgConn().PID()
	p.KeepService(testContext(t), first)
	if other := service(t, p, "template1"); other.PgConn().PID() == pid {
		t.Error("a connection to another database was given")
	} else {
		p.KeepService(testContext(t), other)
	}
	again := service(t, p, "postgres")
	if again.PgConn().PID() != pid {
		t.Error("the kept connection was not used again")
	}

	// One that is in a transaction, and one that was closed, are not kept.
	if _, err := again.Exec(testContext(t), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	p.KeepService(testContext(t), again)
	if !again.IsClosed() || p.services.take(keyOf(again.Config())) != nil {
		t.Error("a connection in a transaction was kept")
	}
	p.KeepService(testContext(t), again)
	if p.services.take(keyOf(again.Config())) != nil {
		t.Error("a closed connection was kept")
	}

	// No more than some, and not for long.
	var list []*pgx.Conn
	for range maxIdleServices + 1 {
		list = append(list, service(t, p, "postgres"))
	}
	for _, conn := range list {
		p.KeepService(testContext(t), conn)
	}
	if !list[maxIdleServices].IsClosed() || list[0].IsClosed() {
		t.Error("the bound of kept connections does not hold")
	}
	p.sweep(time.Now().Add(serviceIdleTimeout / 2))
	if list[0].IsClosed() {
		t.Error("closed too early")
	}
	p.sweep(time.Now().Add(2 * serviceIdleTimeout))
	if !list[0].IsClosed() || len(p.services.idle) != 0 {
		t.Error("an idle connection was kept for longer than the timeout")
	}
}

// The databases of a server together do not keep more than some: the one that waited longest goes.
func TestServicesOfServer(t *testing.T) {
	p := newPools(t, nil)
	admin := service(t, p, "postgres")
	t.Cleanup(func() { p.KeepService(testContext(t), admin) })
	var kept []*pgx.Conn
	for i := range maxIdleServicesOfServer + 1 {
		database := fmt.Sprintf("kept%d", i)
		if _, err := admin.Exec(testContext(t), "CREATE DATABASE "+database+" STRATEGY file_copy"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := admin.Exec(testContext(t), "DROP DATABASE "+database+" WITH (FORCE)"); err != nil {
				t.Error(err)
			}
		})
		kept = append(kept, service(t, p, database))
	}
	for _, conn := range kept {
		p.KeepService(testContext(t), conn)
	}
	if !kept[0].IsClosed() || kept[1].IsClosed() {
		t.Error("not the oldest was closed")
	}
}

// A kept connection whose server was restarted, or whose backend was terminated, is not given to anybody.
func TestKeptServiceIsAlive(t *testing.T) {
	p := newPools(t, nil)
	kept, killer := service(t, p, "postgres"), service(t, p, "postgres")
	p.KeepService(testContext(t), kept)
	if _, err := killer.Exec(testContext(t), "SELECT pg_terminate_backend($1, 10000)", kept.PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	next := service(t, p, "postgres")
	if _, err := next.Exec(testContext(t), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	p.KeepService(testContext(t), next)
	p.KeepService(testContext(t), killer)
	if err := cluster.StopShard(0); err != nil {
		t.Fatal(err)
	}
	if err := cluster.StartShard(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	next = service(t, p, "postgres")
	if _, err := next.Exec(testContext(t), "SELECT 1"); err != nil {
		t.Fatal(err)
	}

	// DROP DATABASE needs the kept ones gone, and Close leaves none.
	p.KeepService(testContext(t), next)
	p.CloseDatabase("postgres")
	if !next.IsClosed() {
		t.Error("CloseDatabase left a kept connection")
	}
	next = service(t, p, "postgres")
	p.KeepService(testContext(t), next)
	late := service(t, p, "template1")
	p.Close()
	p.KeepService(testContext(t), late)
	if !next.IsClosed() || !late.IsClosed() {
		t.Error("Close left a kept connection")
	}
}
