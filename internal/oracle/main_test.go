package oracle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/planner"
)

// bed serves all tests of the package; its routers have a planted fault while planted is set.
var (
	bed     *Bed
	planted atomic.Pointer[func(planner.Plan) planner.Plan]
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
	started, err := Start(ctx, Config{FreshGoroutine: true, Fault: func(p planner.Plan) planner.Plan {
		if fault := planted.Load(); fault != nil {
			return (*fault)(p)
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
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel() // what one file changes must not disturb another
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		(&Script{Bed: bed, Database: database, Schema: "case_" + name}).Run(t, path)
	})
}

func newSession(t *testing.T, schema string) *Session {
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
