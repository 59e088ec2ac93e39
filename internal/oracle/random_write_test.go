package oracle

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
)

// nextWrite makes an INSERT, an UPDATE, of the shard key too, or a DELETE; table is the one that it changes.
func (g *generator) nextWrite() (statement Statement, table string) {
	if g.chance(45) {
		return g.nextInsert()
	}
	return g.nextChange()
}

// nextChange makes an UPDATE or a DELETE.
func (g *generator) nextChange() (statement Statement, table string) {
	g.args, g.params = nil, g.chance(50)
	from := generatedTables[g.random.IntN(len(generatedTables))]
	alias, prefix := "", ""
	if g.chance(30) {
		alias, prefix = " AS x", "x."
	}
	sql := "DELETE FROM " + from.name + alias
	if g.chance(75) {
		sql = "UPDATE " + from.name + alias + " SET " + g.assignments(from, prefix)
	}
	g.parts = parts{head: sql + " WHERE " + prefix + "ctid = ", table: from.name}
	if g.chance(95) {
		condition := g.condition(from, prefix, g.random.IntN(3))
		sql += " WHERE " + condition
		g.parts.tail = " AND (" + condition + ")"
	}
	if g.chance(60) {
		sql += " RETURNING " + g.pick("*", prefix+from.columns[0].name, "1 AS one, "+prefix+"a", prefix+"a IS NULL AS missing, "+prefix+from.columns[0].name)
	}
	return Statement{SQL: sql, Args: g.args, AnyMessage: true}, from.name
}

// assignments makes the list of SET. No key of a RANGE becomes NULL: no partition has room for it.
func (g *generator) assignments(table generatedTable, prefix string) string {
	var list []string
	for _, i := range g.random.Perm(len(table.columns))[:1+g.random.IntN(2)] {
		column := table.columns[i]
		own := prefix + column.name
		value := g.pick("'"+g.plain(column)+"'", own)
		switch {
		case column.kind == "int":
			value = g.pick(value, own+" + 1", own+" * 3", g.plain(column)+".4", "("+own+")::bigint")
		case column.kind == "numeric":
			value = g.pick(value, own+" + 0.5", "-"+own)
		case column.kind == "date":
			value = g.pick(value, own+" + 5", own+" - 7", "timestamp '"+g.plain(column)+" 23:00'")
		case column.kind == "text":
			value = g.pick(value, own+" || 'a'", "upper("+own+")")
		}
		if i > 0 && g.chance(40) {
			value = g.value(column)
		}
		list = append(list, column.name+" = "+value)
	}
	return strings.Join(list, ", ")
}

// tally counts what became of random writes.
type tally struct{ answered, failed, either, refused, committed int }

// TestRandomWrites runs random INSERTs, UPDATEs and DELETEs in transactions that look at what they did, and some alone;
// some are committed.
func TestRandomWrites(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-oracle.seed=%d repeats it)", seed, seed)
	session := newSession(t, "case_generated_writes")
	setUpGenerated(t, session)
	g := newGenerator(seed)
	count := *countFlag / 2
	kinds := map[string]*tally{}
	total := 0
	for i := range count {
		statement, table := g.nextWrite()
		kind, _, _ := strings.Cut(statement.SQL, " ")
		sum := kinds[kind]
		if sum == nil {
			sum = &tally{}
			kinds[kind] = sum
		}
		keep := g.chance(10) && kind != "DELETE"
		alone := keep && g.chance(50)
		for _, mode := range Modes {
			last := keep && mode == Modes[len(Modes)-1]
			verdict, err := g.write(t.Context(), session, statement, table, mode, ending{commit: last, alone: last && alone})
			if err != nil {
				t.Fatalf("statement %d, %s: %v\n%s %v", i, mode, err, statement.SQL, statement.Args)
			}
			either, err := g.eitherError(t.Context(), session, verdict, statement)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case either:
				sum.either++
			case verdict.Difference != "":
				t.Errorf("statement %d, %s: %s\n%s %v", i, mode, verdict, statement.SQL, statement.Args)
			case verdict.Refused != "":
				sum.refused++
			case verdict.Plain.Err != nil:
				sum.failed++
			default:
				total++
				sum.answered++
				if last {
					sum.committed++
				}
			}
		}
	}
	for kind, sum := range kinds {
		t.Logf("%s: %d answers, %d of them committed, %d errors, %d of which one of several errors, %d refusals",
			kind, sum.answered, sum.committed, sum.failed+sum.either, sum.either, sum.refused)
	}
	if total < count {
		t.Errorf("only %d of %d were answered: this proves little", total, len(Modes)*count)
	}
	if err := bed.CompareContents(t.Context(), database, "case_generated_writes"); err != nil {
		t.Error(err)
	}
}

// ending says how a random write ends. The zero ending rolls it back.
type ending struct {
	commit bool
	alone  bool // it is no part of a transaction block
}

// write runs a statement in a transaction, compares the table behind it, and ends the transaction. A difference in the
// table is one of the statement.
func (g *generator) write(ctx context.Context, s *Session, st Statement, table string, mode Mode, end ending) (Verdict, error) {
	s.Stay(true)
	defer s.Stay(false)
	if !end.alone {
		if _, err := s.Ask(ctx, Statement{SQL: "BEGIN"}, Simple); err != nil {
			return Verdict{}, err
		}
	}
	verdict, err := s.Ask(ctx, st, mode)
	if err != nil || verdict.Difference != "" || verdict.Refused != "" || verdict.Plain.Err != nil {
		return verdict, firstError(err, s.Quiet(ctx))
	}
	rows, err := s.Ask(ctx, Statement{SQL: "SELECT * FROM " + table}, Simple)
	if err != nil || rows.Difference != "" {
		return rows, firstError(err, s.Quiet(ctx))
	}
	if end.commit && !end.alone {
		if ended, err := s.Ask(ctx, Statement{SQL: "COMMIT"}, Simple); err != nil || ended.Difference != "" {
			return ended, err
		}
	}
	return verdict, s.Quiet(ctx)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
