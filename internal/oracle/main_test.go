package oracle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/planner"
)

// bed serves all tests of the package. planted has a fault, a func(planner.Plan) planner.Plan, for each schema whose tables its
// routers use wrongly.
var (
	bed     *Bed
	planted sync.Map
)

func TestMain(m *testing.M) {
	if os.Getenv(routerMode) != "" {
		os.Exit(runRouter())
	}
	goleak.VerifyTestMain(&testRun{m})
}

// testRun is a testing.M with the bed around it.
type testRun struct{ tests *testing.M }

func (r *testRun) Run() int {
	ctx := context.Background()
	started, err := Start(ctx, Config{EventLoop: true, Fault: func(p planner.Plan) planner.Plan {
		for _, table := range p.Tables {
			if fault, ok := planted.Load(table.Schema); ok {
				return fault.(func(planner.Plan) planner.Plan)(p)
			}
		}
		return p
	}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "start the bed: %v\n", err)
		return 1
	}
	bed = started
	code := r.tests.Run()
	if err := bed.Close(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "close the bed: %v\n", err)
		return max(code, 1)
	}
	return code
}

const database = "postgres"

func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel() // what one file changes must not disturb another
		name := "case_" + strings.TrimSuffix(filepath.Base(path), ".txt")
		newDatabase(t, name)
		(&Script{Bed: bed, Database: name, Schema: name}).Run(t, path)
	})
}

// newDatabase makes a database on both sides, so that files cannot disturb each other.
func newDatabase(t *testing.T, name string) {
	t.Helper()
	for _, url := range []string{bed.Plain.ConnString(0, database), bed.RouterConnString(0, database)} {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
		closeConn(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newSession(t *testing.T, schema string) *Session {
	t.Helper()
	return newSessionIn(t, database, schema)
}

func newSessionIn(t *testing.T, database, schema string) *Session {
	t.Helper()
	session, err := bed.NewSession(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close(context.WithoutCancel(t.Context())) })
	if err := session.EnterSchema(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return session
}
