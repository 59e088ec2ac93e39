package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

const (
	accounts       = 1000
	openingBalance = 1000
	clients        = 8
	readers        = 3
	// fewest acknowledged transfers in a minute of chaos, so that the test cannot pass by standing still.
	fewest = 200
)

// bank is what the clients and readers saw.
type bank struct {
	bed    *bed
	nextID atomic.Int64
	sums   atomic.Int64 // right ones

	errorLog

	mu    sync.Mutex
	fates map[int64]fate
	torn  []string
}

func TestBank(t *testing.T) {
	random := seeded(t)
	b := &bank{bed: newBed(t), fates: map[int64]fate{}, errorLog: newErrorLog(t)}
	b.open()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	for i := range clients {
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		work.Go(func() { b.transferrer(ctx, i, own) })
	}
	for i := range readers {
		work.Go(func() { b.reader(ctx, i) })
	}
	b.bed.runNemeses(t, random, *duration)
	if err := b.bed.heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.bed.calm(t)
	stop()
	work.Wait()
	b.check()
}

// open fills the bank.
func (b *bank) open() {
	conn := b.bed.connect(b.t, 0)
	for _, sql := range []string{
		"CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)",
		"CREATE TABLE ledger (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL)",
		"SHARD TABLE accounts BY HASH (id) PARTITIONS 24",
		"SHARD TABLE ledger BY HASH (id) PARTITIONS 24",
		fmt.Sprintf("INSERT INTO accounts SELECT i, %d FROM generate_series(0, %d) i", openingBalance, accounts-1),
		"CREATE TABLE copies (id int PRIMARY KEY, balance bigint NOT NULL)",
		"SHARD TABLE copies BY HASH (id) COLOCATE WITH accounts",
		"INSERT INTO copies SELECT * FROM accounts",
	} {
		if _, err := conn.Exec(b.t.Context(), sql); err != nil {
			b.t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (b *bank) transferrer(ctx context.Context, number int, random *rand.Rand) {
	c := &client{bed: b.bed, errors: &b.errorLog, at: number}
	defer c.close(ctx)
	for ctx.Err() == nil {
		c.with(ctx, func(ctx context.Context, conn *pgx.Conn) error { return b.transfer(ctx, conn, random) })
	}
}

// transfer moves money between two accounts and writes it down in the ledger: up to three shards.
func (b *bank) transfer(ctx context.Context, conn *pgx.Conn, random *rand.Rand) error {
	id := b.nextID.Add(1)
	source, target, amount := random.IntN(accounts), random.IntN(accounts), 1+random.IntN(20)
	steps := []struct {
		sql  string
		args []any
	}{
		{"BEGIN", nil},
		{"UPDATE accounts SET balance = balance - $2 WHERE id = $1", []any{source, amount}},
		{"UPDATE accounts SET balance = balance + $2 WHERE id = $1", []any{target, amount}},
		{"INSERT INTO ledger VALUES ($1, $2, $3, $4)", []any{id, source, target, amount}},
	}
	for _, step := range steps {
		if _, err := conn.Exec(ctx, step.sql, step.args...); err != nil {
			word, _, _ := strings.Cut(step.sql, " ")
			b.failed(ctx, word, err)
			b.learn(id, refused) // no COMMIT was sent
			return err
		}
	}
	f, err := commit(ctx, conn)
	b.learn(id, f)
	if err != nil {
		b.failed(ctx, "COMMIT", err)
	}
	return err
}

func (b *bank) learn(id int64, f fate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fates[id] = f
}

func (b *bank) reader(ctx context.Context, number int) {
	c := &client{bed: b.bed, errors: &b.errorLog, at: number}
	defer c.close(ctx)
	for round := number; ctx.Err() == nil; round++ {
		c.with(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if number == 0 && round%8 == 4 { // of one reader: several would wait for each other
				return b.read(ctx, conn, "write", "UPDATE copies c SET balance = a.balance FROM accounts a WHERE a.id = c.id RETURNING c.id, c.balance")
			}
			if round%2 == 0 {
				return b.read(ctx, conn, "autocommit", "SELECT id, balance FROM accounts")
			}
			return b.readTwice(ctx, conn, round%20 == 1)
		})
	}
}

// read adds all balances up.
func (b *bank) read(ctx context.Context, conn *pgx.Conn, mode, sql string) error {
	rows, err := conn.Query(ctx, sql)
	if err == nil {
		var balances map[int]int
		if balances, err = collectBalances(rows); err == nil {
			b.judge(mode, balances)
		}
	}
	if err != nil {
		b.failed(ctx, "read", err)
	}
	return err
}

// readTwice reads in one REPEATABLE READ transaction: the second answer is the first, and the ledger explains it.
func (b *bank) readTwice(ctx context.Context, conn *pgx.Conn, ledger bool) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		var seen []map[int]int
		for range 2 {
			rows, err := tx.Query(ctx, "SELECT id, balance FROM accounts")
			if err != nil {
				return err
			}
			balances, err := collectBalances(rows)
			if err != nil {
				return err
			}
			b.judge("repeatable read", balances)
			seen = append(seen, balances)
		}
		if !maps.Equal(seen[0], seen[1]) {
			b.tear("a REPEATABLE READ transaction read two different states")
		}
		if !ledger {
			return nil
		}
		entries, err := readLedger(ctx, tx)
		if err == nil && !maps.Equal(explained(entries), seen[0]) {
			b.tear("in a REPEATABLE READ transaction the ledger does not explain the balances")
		}
		return err
	})
	if err != nil {
		b.failed(ctx, "read twice", err)
	}
	return err
}

func (b *bank) judge(mode string, balances map[int]int) {
	sum := 0
	for _, balance := range balances {
		sum += balance
	}
	if len(balances) != accounts || sum != accounts*openingBalance {
		b.tear(fmt.Sprintf("%s: %d accounts with %d, want %d with %d", mode, len(balances), sum, accounts, accounts*openingBalance))
		return
	}
	b.sums.Add(1)
}

func (b *bank) tear(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.torn = append(b.torn, what)
}

func collectBalances(rows pgx.Rows) (map[int]int, error) {
	balances := make(map[int]int, accounts)
	var id, balance int
	_, err := pgx.ForEachRow(rows, []any{&id, &balance}, func() error {
		balances[id] += balance
		return nil
	})
	return balances, err
}

// entry is a row of the ledger.
type entry struct {
	ID                     int64
	Source, Target, Amount int
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readLedger(ctx context.Context, q querier) ([]entry, error) {
	rows, err := q.Query(ctx, "SELECT id, source, target, amount FROM ledger")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[entry])
}

// explained are the balances that a ledger makes.
func explained(ledger []entry) map[int]int {
	balances := make(map[int]int, accounts)
	for id := range accounts {
		balances[id] = openingBalance
	}
	for _, e := range ledger {
		balances[e.Source] -= e.Amount
		balances[e.Target] += e.Amount
	}
	return balances
}

// check compares what the clients know with the truth on the shards.
func (b *bank) check() {
	t := b.t
	b.tell()
	count := map[fate]int{}
	for _, f := range b.fates {
		count[f]++
	}
	t.Logf("%d transfers acknowledged, %d refused, %d unknown; %d right sums", count[acknowledged], count[refused], count[unknown], b.sums.Load())
	for i, what := range b.torn {
		if i == 10 {
			t.Errorf("… and %d more torn reads", len(b.torn)-i)
			break
		}
		t.Error(what)
	}
	if least := int(fewest * duration.Minutes()); count[acknowledged] < least || b.sums.Load() < int64(least)/10 {
		t.Errorf("%d transfers and %d sums are too few", count[acknowledged], b.sums.Load())
	}
	b.bed.quiet(t)
	var ledger []entry
	balances := map[int]int{}
	for shard := range shards {
		conn, err := pgx.Connect(t.Context(), b.bed.cluster.ConnString(shard, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		entries, err := readLedger(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		ledger = append(ledger, entries...)
		rows, err := conn.Query(t.Context(), "SELECT id, balance FROM accounts")
		if err != nil {
			t.Fatal(err)
		}
		part, err := collectBalances(rows)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(balances, part)
	}
	if !maps.Equal(balances, explained(ledger)) {
		t.Error("the ledger does not explain the balances")
	}
	b.checkFates(ledger)
}

func (b *bank) checkFates(ledger []entry) {
	there := map[int64]bool{}
	for _, e := range ledger {
		if there[e.ID] {
			b.t.Errorf("transfer %d is in the ledger twice", e.ID)
		}
		there[e.ID] = true
	}
	for id, f := range b.fates {
		switch {
		case f == acknowledged && !there[id]:
			b.t.Errorf("acknowledged transfer %d is lost", id)
		case f == refused && there[id]:
			b.t.Errorf("refused transfer %d was committed", id)
		}
	}
}
