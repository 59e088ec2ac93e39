package clients

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

// protocols are pgbench's query modes.
var protocols = []string{"simple", "extended", "prepared"}

var transactionsProcessed = regexp.MustCompile(`number of transactions actually processed: ([1-9]\d*)`)

// bench runs pgbench through the router; it must succeed without a failed transaction.
func bench(t *testing.T, database string, args ...string) {
	t.Helper()
	args = append(args, "-n", routed.url(database))
	shown := mustRun(t, "", "pgbench", args...)
	if !transactionsProcessed.MatchString(shown) || !strings.Contains(shown, "number of failed transactions: 0 (0.000%)") {
		t.Fatalf("pgbench %q:\n%s", args, shown)
	}
}

func TestPgbench(t *testing.T) {
	t.Parallel()
	newDatabase(t, "bench", "")
	shown := mustRun(t, "", "pgbench", "-i", "-s", "1", routed.url("bench"))
	contains(t, shown, "creating tables...", "100000 of 100000 tuples (100%) done", "vacuuming...", "creating primary keys...", "done in")
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			bench(t, "bench", "-M", protocol, "-T", "3", "-c", "4", "-j", "2")
			checkBalances(t, "bench")
		})
	}
	t.Run("vacuum and initialisation on the server", func(t *testing.T) {
		mustRun(t, "", "pgbench", "-i", "-I", "dtGvpf", "-s", "1", routed.url("bench"))
		mustRun(t, "", "pgbench", "-t", "20", routed.url("bench"))
		checkBalances(t, "bench")
	})
	t.Run("simple update, 16 clients", func(t *testing.T) {
		bench(t, "bench", "-N", "-T", "1", "-c", "16", "-j", "2", "-M", "prepared")
	})
	t.Run("partitioned", func(t *testing.T) {
		mustRun(t, "", "pgbench", "-i", "-s", "1", "--partitions", "3", "--foreign-keys", routed.url("bench"))
		bench(t, "bench", "-T", "1", "-c", "2", "-M", "extended")
		checkBalances(t, "bench")
	})
}

// checkBalances checks TPC-B's consistency: all sums are the same.
func checkBalances(t *testing.T, database string) {
	t.Helper()
	sums := strings.Fields(routed.do(t, database, `SELECT sum(abalance) FROM pgbench_accounts; SELECT sum(bbalance) FROM pgbench_branches;
		SELECT sum(tbalance) FROM pgbench_tellers; SELECT sum(delta) FROM pgbench_history; SELECT count(*) > 0 FROM pgbench_history;`))
	if len(sums) != 5 || sums[0] != sums[1] || sums[1] != sums[2] || sums[2] != sums[3] || sums[4] != "t" {
		t.Errorf("sums of accounts, branches, tellers and history: %q", sums)
	}
}

// accounts is the number of rows of pgbench_accounts at scale 1.
const accounts = 100_000

// findAccount fails if an account is not found, or another one is.
const findAccount = `\set aid random(1, 100000)
SELECT abalance, aid AS found FROM pgbench_accounts WHERE aid = :aid \gset
\if :found = :aid
\else
SELECT 1 / 0;
\endif
`

func TestPgbenchSharded(t *testing.T) {
	t.Parallel()
	newDatabase(t, "benchsharded", "")
	mustRun(t, "", "pgbench", "-i", "-I", "dtp", routed.url("benchsharded"))
	routed.do(t, "benchsharded", `INSERT INTO pgbench_branches VALUES (1, 0);
		SHARD TABLE pgbench_accounts BY HASH (aid) PARTITIONS 16`)
	for aid := 1; aid <= 50; aid++ { // the first ones through the router, the rest below
		routed.do(t, "benchsharded", insertAccounts(t, &aid, 25))
	}
	fillAccounts(t, "benchsharded", 51)
	checkAccounts(t, "benchsharded")
	script := writeFile(t, "find.sql", findAccount)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			bench(t, "benchsharded", "-S", "-M", protocol, "-T", "1", "-c", "4", "-j", "2")
			bench(t, "benchsharded", "-f", script, "-M", protocol, "-t", "300", "-c", "4", "-j", "2")
		})
	}
	t.Run("16 clients", func(t *testing.T) {
		bench(t, "benchsharded", "-S", "-M", "prepared", "-T", "1", "-c", "16", "-j", "2")
	})
	t.Run("a connection for each transaction", func(t *testing.T) {
		bench(t, "benchsharded", "-S", "-C", "-M", "extended", "-T", "1", "-c", "4", "-j", "2")
	})
	t.Run("updates by key", func(t *testing.T) {
		update := writeFile(t, "update.sql", "\\set aid random(1, 100000)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n")
		for _, protocol := range protocols {
			bench(t, "benchsharded", "-f", update, "-M", protocol, "-t", "50", "-c", "4", "-j", "2")
		}
		total := 0
		for _, field := range strings.Fields(routed.do(t, "benchsharded", "SELECT abalance FROM pgbench_accounts WHERE abalance <> 0")) {
			var n int
			if _, err := fmt.Sscan(field, &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
		if want := len(protocols) * 50 * 4; total != want {
			t.Errorf("the balances say %d updates, pgbench did %d", total, want)
		}
	})
}

// insertAccounts inserts the next n accounts, one by one, and leaves aid at the last of them.
func insertAccounts(t *testing.T, aid *int, n int) string {
	t.Helper()
	var script strings.Builder
	last := *aid + n - 1
	for ; *aid <= last; *aid++ {
		fmt.Fprintf(&script, "INSERT INTO pgbench_accounts VALUES (%d, 1, 0, '');\n", *aid)
	}
	*aid = last
	return script.String()
}

// fillAccounts gives each shard the accounts from the first on that belong there.
func fillAccounts(t *testing.T, database string, first int) {
	t.Helper()
	ctx := t.Context()
	store, err := etcd.Open(ctx, etcd.Config{Endpoints: bed.Shards.Etcd().Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	snapshot, err := store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	partitions := snapshot.Maps[database]
	table, ok := partitions.Table(directory.TableName{Schema: "public", Name: "pgbench_accounts"})
	if !ok {
		t.Fatal("pgbench_accounts is not in the map")
	}
	group, _ := partitions.Group(table.Group)
	for i, shard := range bed.Shards.Shards() {
		conditions := []string{"false"}
		for _, p := range group.Partitions {
			if p.Shard == shard.ID {
				conditions = append(conditions, directory.HashCondition([]string{"aid"}, p.HashFrom, p.HashTo))
			}
		}
		execute(t, bed.Shards.ConnString(i, database), fmt.Sprintf(
			`INSERT INTO pgbench_accounts SELECT aid, 1, 0, '' FROM generate_series(%d, %d) AS aid WHERE (%s)`,
			first, accounts, strings.Join(conditions, ") OR (")))
		execute(t, bed.Shards.ConnString(i, database), `ANALYZE pgbench_accounts`)
	}
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
}

// checkAccounts reads all accounts through the router: each is there once, in order.
func checkAccounts(t *testing.T, database string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), routed.url(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), `SELECT aid FROM pgbench_accounts ORDER BY aid`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	want := make([]int, accounts)
	for i := range want {
		want[i] = i + 1
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d accounts, not each of the %d once", len(got), accounts)
	}
}
