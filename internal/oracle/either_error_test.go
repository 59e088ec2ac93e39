package oracle

import (
	"context"
	"fmt"
	"slices"
)

// parts are what a statement that writes is put together from, so that it can be run for some of its rows.
type parts struct {
	head, tail string
	rows       []string // of VALUES
	table      string   // if it has none: the table whose rows are changed, each found by what stands between head and tail
}

// some are the statement for each of its rows alone and, of VALUES, for each two of them.
func (p *parts) some(ctx context.Context, s *Session) ([]string, error) {
	var list []string
	for i, row := range p.rows {
		list = append(list, p.head+row+p.tail)
		for _, other := range p.rows[:i] {
			list = append(list, p.head+other+", "+row+p.tail)
		}
	}
	if p.table == "" {
		return list, nil
	}
	rows, err := ask(ctx, s.plain, Statement{SQL: "SELECT ctid FROM " + p.table}, Simple)
	if err != nil || rows.Err != nil {
		return nil, firstError(err, fmt.Errorf("list rows of %s: %w", p.table, rows.Err))
	}
	for _, row := range rows.Rows {
		list = append(list, p.head+"'"+row[0]+"'"+p.tail)
	}
	return list, nil
}

// eitherError reports that the two sides found fault with the values of different rows: if several rows are wrong it is not
// fixed which one is told (docs/inserts.md). So each error must be one that the plain Postgres finds in some of the rows.
// Nothing of the statement stands on either side.
func (g *generator) eitherError(ctx context.Context, s *Session, v Verdict, st Statement) (bool, error) {
	plain, cluster := codeOf(v.Plain), codeOf(v.Cluster)
	ofValues := func(code string) bool { return len(code) == 5 && slices.Contains([]string{"21", "22", "23"}, code[:2]) }
	if v.Difference == "" || !ofValues(plain) || !ofValues(cluster) {
		return false, nil
	}
	list, err := g.parts.some(ctx, s)
	if err != nil {
		return false, err
	}
	found := map[string]bool{}
	for _, sql := range list {
		part := st
		part.SQL = inline(Statement{SQL: sql, Args: st.Args})
		part.Args = nil
		if _, err := ask(ctx, s.plain, Statement{SQL: "BEGIN"}, Simple); err != nil {
			return false, err
		}
		outcome, err := ask(ctx, s.plain, part, Simple)
		if err != nil {
			return false, err
		}
		if _, err := ask(ctx, s.plain, Statement{SQL: "ROLLBACK"}, Simple); err != nil {
			return false, err
		}
		found[codeOf(outcome)] = true
		if found[plain] && found[cluster] {
			return true, nil
		}
	}
	return false, nil
}
