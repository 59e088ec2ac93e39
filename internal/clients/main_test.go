package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/oracle"
)

// bed and programs serve all tests of the package.
var (
	bed      *oracle.Bed
	programs devcluster.Binaries
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(&testRun{m}) }

// testRun is a testing.M with the bed around it.
type testRun struct{ tests *testing.M }

func (r *testRun) Run() int {
	ctx := context.Background()
	var err error
	if programs, err = devcluster.FindBinaries(ctx, devcluster.SystemSearch(), slog.New(slog.DiscardHandler)); err != nil {
		fmt.Fprintf(os.Stderr, "find the clients: %v\n", err)
		return 1
	}
	if bed, err = oracle.Start(ctx, oracle.Config{Routers: 1}); err != nil {
		fmt.Fprintf(os.Stderr, "start the bed: %v\n", err)
		return 1
	}
	code := r.tests.Run()
	if err := bed.Close(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "close the bed: %v\n", err)
		return max(code, 1)
	}
	return code
}

// side is where a client connects: the plain Postgres, or the router.
type side struct {
	name   string
	router bool
	url    func(database string) string
}

var (
	plain = side{name: "plain", url: func(database string) string {
		return bed.Plain.ConnString(0, database)
	}}
	routed = side{name: "routed", router: true, url: func(database string) string {
		return bed.RouterConnString(0, database)
	}}
	sides = []side{plain, routed}
)

// programTimeout bounds one run of a client.
const programTimeout = 2 * time.Minute

// result is how a client ended. Output is what it wrote to both of its streams, in order.
type result struct {
	Output string
	Code   int
}

func (r result) String() string { return fmt.Sprintf("%s\nexit code %d", r.Output, r.Code) }

// run runs one of Postgres's clients to its end.
func run(t *testing.T, stdin, program string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), programTimeout) // clean-ups run clients too
	defer cancel()
	cmd := command(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	output, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("run %s %q: %v\n%s", program, args, err, output)
	}
	return result{Output: string(output), Code: cmd.ProcessState.ExitCode()}
}

// programPath is the client that belongs to the servers or, where their folder holds only servers, the first in PATH.
func programPath(program string) string {
	if path, err := exec.LookPath(program); err == nil && !programs.Has(program) {
		return path
	}
	return programs.Path(program)
}

// command is a client with an environment that does not depend on the machine's.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, programPath(program), args...)
	cmd.Env = []string{"HOME=/nonexistent", "LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH"), "PGTZ=UTC", "PGCONNECT_TIMEOUT=10", "TERM=dumb"}
	cmd.WaitDelay = time.Second
	return cmd
}

// mustRun is run for a client that must succeed.
func mustRun(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	r := run(t, stdin, program, args...)
	if r.Code != 0 {
		t.Fatalf("%s %q failed: %s", program, args, r)
	}
	return r.Output
}

// psql runs a script as psql would read it from a pipe.
func (s side) psql(t *testing.T, database, script string, args ...string) result {
	t.Helper()
	return run(t, script, "psql", append([]string{"-X", "-P", "pager=off", "-d", s.url(database)}, args...)...)
}

// do runs a script that must not fail.
func (s side) do(t *testing.T, database, script string) string {
	t.Helper()
	r := s.psql(t, database, script, "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
	if r.Code != 0 {
		t.Fatalf("script fails on %s: %s\n%s", s.name, r, script)
	}
	return r.Output
}

// newDatabase makes a database on both sides and runs the script in it; lines that begin with the word SHARD
// are only for the router. It stays until the bed is closed.
func newDatabase(t *testing.T, name, script string) {
	t.Helper()
	for _, s := range sides {
		s.do(t, "postgres", "CREATE DATABASE "+name)
		text := script
		if !s.router {
			text = withoutSharding(script)
		}
		s.do(t, name, text)
	}
}

func withoutSharding(script string) string {
	var kept []string
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(line, "SHARD ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// difference shows where two texts begin to differ; "" if they do not.
func difference(want, got string) string {
	if want == got {
		return ""
	}
	wanted, gotten := strings.Split(want, "\n"), strings.Split(got, "\n")
	at := 0
	for at < len(wanted) && at < len(gotten) && wanted[at] == gotten[at] {
		at++
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "they differ from line %d on\nplain Postgres:\n", at+1)
	excerpt(&text, wanted, at)
	text.WriteString("through the router:\n")
	excerpt(&text, gotten, at)
	return text.String()
}

func excerpt(text *bytes.Buffer, lines []string, at int) {
	for _, line := range lines[max(at-2, 0):min(at+12, len(lines))] {
		fmt.Fprintf(text, "    | %s\n", line)
	}
}
