package logins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
)

// cluster serves all tests of the package, pki is who signs.
var (
	cluster *testbed.Cluster
	pki     *authorities
)

// shardRules let the router's service role in, and everybody else by SCRAM over TLS.
const shardRules = `host    all postgres 127.0.0.1/32 trust
hostssl all old_user 127.0.0.1/32 md5
hostssl all trusted_there 127.0.0.1/32 trust
hostssl all all      127.0.0.1/32 scram-sha-256
`

func TestMain(m *testing.M) { goleak.VerifyTestMain(&testRun{m}) }

// testRun is a testing.M with the certificates and the cluster around it.
type testRun struct{ tests *testing.M }

func (r *testRun) Run() int {
	code, err := r.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func (r *testRun) run() (code int, err error) {
	dir, err := os.MkdirTemp("", "shardyard-logins-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if pki, err = newAuthorities(dir); err != nil {
		return 1, err
	}
	hba := filepath.Join(dir, "hba.conf")
	if err := os.WriteFile(hba, []byte(shardRules), 0o644); err != nil {
		return 1, err
	}
	if err := ownByServers(dir); err != nil {
		return 1, err
	}
	settings := map[string]string{"ssl": "on", "ssl_cert_file": pki.server.cert, "ssl_key_file": pki.server.key, "hba_file": hba}
	return testbed.Main(r.tests, devcluster.Config{Shards: 2, Etcd: true, Settings: settings}, &cluster).Run(), nil
}

// ownByServers lets the servers read the certificates; root's run as another user.
func ownByServers(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(account.Uid)
		gid, gidErr := strconv.Atoi(account.Gid)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return err
		}
		return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, uid, gid)
		})
	}
	return errors.New("neither postgres nor nobody is a user here")
}

// door is a router with rules.
type door struct {
	*nodetest.Bed
	t     *testing.T
	rules string // the file
	log   *logLines
	cfg   node.Config
}

// newDoor starts a router over a database of its own whose file of rules has these lines.
func newDoor(t *testing.T, rules string, options ...nodetest.Option) *door {
	t.Helper()
	d := &door{t: t, rules: filepath.Join(t.TempDir(), "hba.conf"), log: &logLines{}}
	d.writeRules(rules)
	options = append([]nodetest.Option{func(c *node.Config) {
		c.Log = slog.New(slog.NewTextHandler(d.log, nil))
		c.Router.Auth = auth.Config{HBAFile: d.rules, TLS: auth.TLS{Cert: pki.server.cert, Key: pki.server.key, ClientCA: pki.root}}
		c.Pools.TLS = backend.TLS{Mode: "verify-full", RootCert: pki.root}
	}}, append(options, func(c *node.Config) { d.cfg = *c })...)
	d.Bed = nodetest.New(t, cluster, 1, options...)
	return d
}

// adminRule lets the tests' own connections in.
const adminRule = "hostnossl all postgres 127.0.0.1/32 trust\n"

func (d *door) writeRules(rules string) {
	d.t.Helper()
	writeFile(d.t, d.rules, adminRule+rules)
}

// reload lets the router read its files again, as SIGHUP does.
func (d *door) reload() error { return d.Routers[0].Reload(d.cfg) }

func (d *door) mustReload() {
	d.t.Helper()
	testbed.Must(d.t, d.reload())
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	testbed.Must(t, os.WriteFile(name, []byte(text), 0o600))
}

// logLines collects what a router logs.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// roles counts those that were made, so that each test has its own.
var roles struct {
	sync.Mutex
	made int
}

// role makes a role with one and the same verifier on all shards, and returns its name.
func (d *door) role(password string) string {
	d.t.Helper()
	roles.Lock()
	roles.made++
	name := fmt.Sprintf("role%d", roles.made)
	roles.Unlock()
	d.makeRole(name, password)
	return name
}

func (d *door) makeRole(name, password string) {
	d.t.Helper()
	// On the home shard last: a shard that joins another test's cluster gets its roles.
	for _, shard := range []int{1, 0} {
		d.onShard(shard, "CREATE ROLE "+name+" LOGIN")
	}
	d.t.Cleanup(func() {
		for shard := range 2 {
			d.onShard(shard, "DROP ROLE "+name)
		}
	})
	d.setPassword(name, password)
}

// setPassword sets it as ALTER ROLE through a router does: one verifier for all.
func (d *door) setPassword(name, password string) {
	d.t.Helper()
	d.onShard(0, "ALTER ROLE "+name+" PASSWORD '"+password+"'")
	d.onShard(1, "ALTER ROLE "+name+" PASSWORD '"+d.verifier(name)+"'")
}

// verifier is what the home shard keeps of a role's password.
func (d *door) verifier(name string) (text string) {
	d.t.Helper()
	testbed.Must(d.t, d.Connect(0).QueryRow(d.t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = $1", name).Scan(&text))
	return text
}

// onShard runs statements on roles, which no database has for itself.
func (d *door) onShard(shard int, statements ...string) {
	d.t.Helper()
	testbed.Exec(d.t, cluster.ConnString(shard, "postgres"), statements...)
}

// url is where a role connects, by default with TLS that is verified.
func (d *door) url(user, password, parameters string) string {
	if !strings.Contains(parameters, "sslmode=") {
		parameters = "sslmode=verify-full sslrootcert=" + pki.root + " " + parameters
	}
	host, port, _ := strings.Cut(d.Routers[0].Addr().String(), ":")
	return fmt.Sprintf("host=%s port=%s dbname=%s user=%s password=%s connect_timeout=30 %s", host, port, d.Name, user, password, parameters)
}

// enter logs in and runs a statement.
func (d *door) enter(user, password, parameters string) error {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.url(user, password, parameters))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(d.t.Context())) }()
	var name string
	if err := conn.QueryRow(d.t.Context(), "SELECT current_user").Scan(&name); err != nil {
		return err
	}
	if name != user {
		return fmt.Errorf("logged in as %s", name)
	}
	return nil
}

func (d *door) mustEnter(user, password, parameters string) {
	d.t.Helper()
	if err := d.enter(user, password, parameters); err != nil {
		d.t.Fatalf("%s %s: %v", user, parameters, err)
	}
}

// mustFail wants an SQLSTATE and words of the message.
func (d *door) mustFail(user, password, parameters, code, words string) {
	d.t.Helper()
	wantError(d.t, d.enter(user, password, parameters), code, words)
}

func wantError(t *testing.T, err error, code, words string) {
	t.Helper()
	var state interface{ SQLState() string }
	if err == nil || code != "" && (!errors.As(err, &state) || state.SQLState() != code) || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, want %s %s", err, code, words)
	}
}

// psql runs Postgres's own client.
func (d *door) psql(url, sql string) (string, error) {
	d.t.Helper()
	programs, err := devcluster.FindBinaries(d.t.Context(), devcluster.SystemSearch(), slog.New(slog.DiscardHandler))
	testbed.Must(d.t, err)
	path := programs.Path("psql")
	if !programs.Has("psql") {
		path, err = exec.LookPath("psql")
		testbed.Must(d.t, err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-X", "-A", "-t", "-w", "-d", url, "-c", sql)
	cmd.Env = []string{"HOME=/nonexistent", "LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

// readAll reads until the router closes.
func readAll(t *testing.T, conn io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	return string(text)
}
