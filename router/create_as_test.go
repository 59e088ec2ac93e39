package router_test

import "testing"

// A pipeline that makes tables from sharded ones commits at its Sync, or leaves nothing.
func TestCreateAsPipeline(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		s.want("parsecomplete bindcomplete ready:I", parse("", "CREATE TABLE never AS SELECT id FROM items"), bind("", ""), sync)
		s.want("parsecomplete params:1 nodata ready:I", parse("a", "CREATE TABLE few AS SELECT id, name FROM items WHERE id < $1"), describe('S', "a"), sync)
		s.want("bindcomplete nodata done:SELECT_4 parsecomplete bindcomplete done:INSERT_0_1 ready:I",
			bind("", "a", "4"), describe('P', ""), execute("", 0), parse("", "INSERT INTO few VALUES (9, 'x')"), bind("", ""), execute("", 0), sync)
		s.want("bindcomplete error:42P07 ready:I", bind("", "a", "4"), execute("", 0), sync)
		s.want("parsecomplete bindcomplete done:SELECT_10 parsecomplete bindcomplete error:22012 ready:I",
			parse("", "SELECT id INTO undone FROM items"), bind("", ""), execute("", 0),
			parse("", "INSERT INTO few SELECT 1 / (id - id) FROM undone"), bind("", ""), execute("", 0), sync)
		conn := b.connect(0)
		expect(t, conn, "SELECT count(*), max(name) FROM few", "5|x\nSELECT 1")
		expect(t, conn, "SELECT to_regclass('undone') IS NULL, to_regclass('never') IS NULL", "t|t\nSELECT 1")
	})
}
