package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules are the libraries that the regression suite loads, and their sources.
var modules = map[string]string{
	"regress.so": "src/test/regress/regress.c",
	"refint.so":  "contrib/spi/refint.c",
	"autoinc.so": "contrib/spi/autoinc.c",
}

// build compiles what no package has, unless the cache has it.
func (t *tools) build(ctx context.Context, dev, isolationRegress string) error {
	include := filepath.Join(dev, "usr/include/postgresql", fmt.Sprint(t.binaries.Major), "server")
	flags := []string{"-O1", "-w", "-D_GNU_SOURCE", "-DREFINT_VERBOSE", "-I", include, "-I", "/usr/include/postgresql", "-I", "/usr/include/postgresql/internal"}
	for name, source := range modules {
		target := filepath.Join(t.built, name)
		if exists(target) {
			continue
		}
		args := append([]string{"-shared", "-fPIC", "-o", target}, flags...)
		if _, err := output(ctx, t.built, "cc", append(args, filepath.Join(t.sources, source))...); err != nil {
			return err
		}
	}
	if err := t.buildTester(ctx, dev, flags); err != nil {
		return err
	}
	if exists(t.isolationRegress()) {
		return nil
	}
	// It looks for isolationtester beside itself.
	program, err := os.ReadFile(isolationRegress)
	if err != nil {
		return err
	}
	return os.WriteFile(t.isolationRegress(), program, 0o755)
}

func (t *tools) isolationRegress() string { return filepath.Join(t.built, "pg_isolation_regress") }

// builtSince reports whether anything was built after a file was written: results from before it are not those of what there is now.
func (t *tools) builtSince(file string) bool {
	written, err := os.Stat(file)
	if err != nil {
		return true
	}
	for _, name := range append(slices.Collect(maps.Keys(modules)), "isolationtester") {
		built, err := os.Stat(filepath.Join(t.built, name))
		if err != nil || built.ModTime().After(written.ModTime()) {
			return true
		}
	}
	return false
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Where a session waits for a lock, isolationtester asks for the backend by the number that the session was given. Behind a
// pooler that is not the backend's, and the backend is another one in each transaction. So this program's copy asks which backends
// run the session's statement now, of the harness, whose address is in backendsVariable; without that it is as ever.
const backendsVariable = "SHARDYARD_BACKENDS"

const (
	testerIncludes = `#define PREP_WAITING "isolationtester_waiting"`
	testerQuery    = `	res = PQprepare(conns[0].conn, PREP_WAITING, wait_query.data, 0, NULL);`
	testerAsk      = `				res = PQexecPrepared(conns[0].conn, PREP_WAITING, 1,
									 &conns[step->session + 1].backend_pid_str,
									 NULL, NULL, 0);`
)

var testerChanges = map[string]string{
	testerIncludes: testerIncludes + `
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

/* the servers' numbers of the backends that work for a session now, as an array */
static const char *
backends_of(const char *session)
{
	static char answer[1024];
	struct sockaddr_in at = {0};
	const char *port = getenv("` + backendsVariable + `");
	int			fd;
	ssize_t		n;

	if (!port)
		return session;
	at.sin_family = AF_INET;
	at.sin_port = htons(atoi(port));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *) &at, sizeof(at)) != 0)
	{
		perror("connect to the harness");
		exit(1);
	}
	dprintf(fd, "%s\n", session);
	n = read(fd, answer, sizeof(answer) - 1);
	close(fd);
	if (n < 1)
		return "{}";
	answer[n] = 0;
	return answer;
}
`,
	testerQuery: `	if (getenv("` + backendsVariable + `"))
	{
		resetPQExpBuffer(&wait_query);
		appendPQExpBufferStr(&wait_query,
							 "SELECT pg_catalog.bool_or(pg_catalog.pg_isolation_test_session_is_blocked(b, a.pids) "
							 /* a backend may have a transaction of another session behind it, which that function takes for its only one */
							 "OR b = ANY (a.waiting)) "
							 "FROM pg_catalog.unnest($1::int4[]) b, (SELECT pg_catalog.array_agg(pid) AS pids, "
							 "pg_catalog.array_agg(pid) FILTER (WHERE wait_event = 'SafeSnapshot') AS waiting "
							 "FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend') a");
	}
` + testerQuery,
	testerAsk: `				const char *backends = backends_of(conns[step->session + 1].backend_pid_str);

				res = PQexecPrepared(conns[0].conn, PREP_WAITING, 1, &backends, NULL, NULL, 0);`,
}

// buildTester builds isolationtester.
func (t *tools) buildTester(ctx context.Context, dev string, flags []string) error {
	target := filepath.Join(t.built, "isolationtester")
	folder := filepath.Join(t.sources, "src/test/isolation")
	text, err := os.ReadFile(filepath.Join(folder, "isolationtester.c"))
	if err != nil {
		return err
	}
	changed := string(text)
	for old, replacement := range testerChanges {
		if strings.Count(changed, old) != 1 {
			return errors.New("isolationtester.c is not as expected: it cannot be made to find the backends behind a router")
		}
		changed = strings.Replace(changed, old, replacement, 1)
	}
	source := filepath.Join(t.built, "isolationtester.c")
	if earlier, err := os.ReadFile(source); err == nil && string(earlier) == changed && exists(target) {
		return nil
	}
	if err := os.WriteFile(source, []byte(changed), 0o644); err != nil {
		return err
	}
	libraries := filepath.Join(dev, "usr/lib/postgresql", fmt.Sprint(t.binaries.Major), "lib")
	args := append([]string{"-o", target, "-I", folder}, flags...)
	args = append(args, source, filepath.Join(folder, "specparse.c"), "-L", libraries, "-lpq", "-lpgcommon", "-lpgport")
	_, err = output(ctx, t.built, "cc", args...)
	return err
}
