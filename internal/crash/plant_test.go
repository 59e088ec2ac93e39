package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// plantedVariable names, in the environment of a router, the mistake that it makes.
const plantedVariable = "PLANTED_MISTAKE"

// mistake is one that an executor could make: a piece of its source text, and what stands there instead.
type mistake struct {
	name  string
	file  string
	right string // stands in the file once
	wrong string // calls planted() to learn whether the mistake is to be made
}

// plantAll writes the mistakes into a copy of the sources. A router makes the one that its environment names.
func plantAll(source string) error {
	dirs := map[string]bool{}
	for _, m := range mistakes {
		path := filepath.Join(source, m.file)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := strings.Count(string(data), m.right); n != 1 {
			return fmt.Errorf("plant %q: its text stands %d times in %s", m.name, n, m.file)
		}
		wrong := strings.ReplaceAll(m.wrong, "planted()", fmt.Sprintf("planted(%q)", m.name))
		if err := os.WriteFile(path, []byte(strings.Replace(string(data), m.right, wrong, 1)), 0o644); err != nil {
			return err
		}
		dirs[filepath.Dir(path)] = true
	}
	for dir := range dirs {
		text := "package " + filepath.Base(dir) + "\n\nimport \"os\"\n\nfunc planted(name string) bool { return os.Getenv(\"" + plantedVariable + "\") == name }\n"
		if err := os.WriteFile(filepath.Join(dir, "planted.go"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mistakes are looked for by TestPlantedMistakes; the first ones, which show whatever the time, in the short form too.
var mistakes = []mistake{
	{
		"COMMIT PREPARED is left out", "router/exec/commit.go",
		`		errands = append(errands, errand{link: l, sql: "COMMIT PREPARED '" + t.gid.String() + "'"})`,
		`		if !planted() {
			errands = append(errands, errand{link: l, sql: "COMMIT PREPARED '" + t.gid.String() + "'"})
		}`,
	},
	{
		"the last mirror is not written", "router/exec/mirror.go",
		`	if len(shards) > 0 && x.tx.isolated() && x.tx.block {`,
		`	if planted() {
			shards = shards[:max(0, len(shards)-1)]
		}
	if len(shards) > 0 && x.tx.isolated() && x.tx.block {`,
	},
	{
		"the gate is not taken", "router/exec/snapshot.go",
		`	return shards > 1 && x.gate != nil`,
		`	return !planted() && shards > 1 && x.gate != nil`,
	},
	{
		"each shard commits for itself", "router/exec/commit.go",
		`	if len(writers) > 1 {`,
		`	if len(writers) > 1 && !planted() {`,
	},
	{
		"the gate does not finish what is decided", "router/commit/gatefinish.go",
		`	if err != nil || len(prepared) == 0 {`,
		`	if err != nil || len(prepared) == 0 || planted() {`,
	},
	{
		"a shard that joins a transaction gets no BEGIN", "router/exec/transaction.go",
		`	x.queueQuery(l, sql, step{kind: stepQuery, silent: true})
	l.begun = true`,
		`	if planted() && len(x.links) > 1 {
		sql = "SELECT 1"
	}
	x.queueQuery(l, sql, step{kind: stepQuery, silent: true})
	l.begun = true`,
	},
	{
		"a shard that joins a transaction gets no savepoints", "router/exec/transaction.go",
		`		sql += "; " + x.tx.later[i].sql`,
		`		if !planted() || !x.tx.later[i].savepoint {
			sql += "; " + x.tx.later[i].sql
		}`,
	},
	{
		"ROLLBACK TO goes to the first shard only", "router/exec/transaction.go",
		`	if err := x.onAll(ctx, "ROLLBACK TO SAVEPOINT "+directory.QuoteIdentifier(name)); err != nil {`,
		`	all := x.links
	if planted() {
		x.links = x.links[:min(1, len(x.links))]
	}
	err = x.onAll(ctx, "ROLLBACK TO SAVEPOINT "+directory.QuoteIdentifier(name))
	x.links = all
	if err != nil {`,
	},
	{
		"ROLLBACK commits on all shards but the first", "router/exec/transaction.go",
		`		if err := x.Command(ctx, l, "ROLLBACK"); err != nil {`,
		`		end := "ROLLBACK"
		if planted() && l != x.links[0] {
			end = "COMMIT"
		}
		if err := x.Command(ctx, l, end); err != nil {`,
	},
	{
		"the counts of the shards are not added up", "router/exec/modify.go",
		`			total, counted = total+n, true`,
		`			if !counted || !planted() {
				total += n
			}
			counted = true`,
	},
	{
		"a statement is not run on its last shard", "router/exec/modify.go",
		`		processes[i] = commit.Process{`,
		`		if planted() && i+2 == len(m.parts) {
			break
		}
		processes[i] = commit.Process{`,
	},
	{
		"the rows that the first shard returns are lost", "router/exec/modify.go",
		`	for ; m.current < len(m.parts); m.current++ {`,
		`	if planted() && m.current == 0 && len(m.parts) > 1 {
		m.current = 1
	}
	for ; m.current < len(m.parts); m.current++ {`,
	},
	{
		"the error of a shard is not heard", "router/exec/modify.go",
		`		if p.err == nil || failed != nil {`,
		`		if p.err == nil || failed != nil || planted() {`,
	},
	{
		"a row whose key changes is deleted and not inserted", "router/exec/move.go",
		`	types := make([]uint32, len(t.Columns))
	names := make([]string, len(t.Columns))`,
		`	if planted() {
		return nil
	}
	types := make([]uint32, len(t.Columns))
	names := make([]string, len(t.Columns))`,
	},
	{
		"a row of COPY goes to another shard", "router/exec/copyin.go",
		`	p, err := c.part(ctx, shard)`,
		`	for _, other := range c.r.Shards {
		if planted() && c.line == 3 && other != shard {
			shard = other
			break
		}
	}
	p, err := c.part(ctx, shard)`,
	},
}
