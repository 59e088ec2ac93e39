package router_test

import "testing"

// deferredChecks makes tables with a check that is deferred to the commit: a row named 'bad' fails it.
func deferredChecks(run func(sql string)) {
	run("CREATE FUNCTION checked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.name = 'bad' THEN RAISE EXCEPTION 'bad' USING ERRCODE = '23514'; " +
		"ELSIF new.name = 'odd' THEN RAISE NOTICE 'odd'; END IF; RETURN NULL; END $$")
	for _, table := range []string{"items", "local"} {
		run("CREATE CONSTRAINT TRIGGER checked AFTER INSERT OR UPDATE ON " + table + " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION checked()")
	}
}

// A statement whose commit fails has no tag in the simple protocol, as Postgres commits before it sends it, and has one in the extended
// protocol, where Sync commits.
func TestAnswersOfFailedCommits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		plain := plainShop(t)
		direct(t, 0, plain, "CREATE TABLE local (id int PRIMARY KEY, name text)")
		deferredChecks(func(sql string) { direct(t, 0, plain, sql) })
		conn := shop(t, b)
		mustSimple(t, conn, "CREATE TABLE local (id int PRIMARY KEY, name text)")
		deferredChecks(func(sql string) { mustSimple(t, conn, sql) })
		all := q("SELECT id, name FROM items ORDER BY id")
		steps := []comparison{{"simple", nil}, {"extended", nil}, {"several statements", nil}}
		for _, sql := range []string{
			"UPDATE items SET name = 'bad'", "UPDATE items SET name = 'odd' WHERE id IN (1, 2, 3, 4)", "UPDATE items SET name = 'n' || id", "UPDATE items SET name = 'bad' WHERE id = 1",
			"INSERT INTO items VALUES (20, 'bad'), (21, 'good'), (22, 'good')", "INSERT INTO items VALUES (30, 'odd'), (31, 'good')",
			"DELETE FROM items WHERE id > 10", "INSERT INTO local VALUES (1, 'bad')", "INSERT INTO local VALUES (1, 'good')", "DELETE FROM local",
			"UPDATE items SET name = 'bad' RETURNING 1",
		} {
			steps[0].steps = append(steps[0].steps, q(sql), all)
			steps[1].steps = append(steps[1].steps, batch(extended(sql), sync), all)
			steps[1].steps = append(steps[1].steps, batch(extended(sql), extended("SELECT 1"), sync), all)
			steps[2].steps = append(steps[2].steps, q("SELECT 1; "+sql), all, q(sql+"; SELECT 1"), all, q(sql+"; COMMIT"), all, q("SELECT 1; "+sql+"; BEGIN"), q("COMMIT"), all,
				q("SELECT g FROM generate_series(1, 3) g; "+sql+"; "+sql), all, q("DELETE FROM items WHERE id > 10; DELETE FROM local"))
		}
		compareWith(t, b, plain, steps)
	})
}
