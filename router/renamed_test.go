package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A role is who it is, not what it is called: server connections of one that was renamed or dropped serve nobody who
// logs in under its old name later.
func TestRolesChangeNames(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	admin := shop(t, b)
	old, now := b.database+"_a", b.database+"_b"
	dropRoles(t, old, now)
	mustSimple(t, admin, "CREATE ROLE "+old+" LOGIN; GRANT SELECT ON items TO "+old)
	as := func(router int, role string) *pgx.Conn {
		return b.connect(router, func(c *pgx.ConnConfig) { c.User = role })
	}
	const who, where = "SELECT current_user, session_user", "SELECT name FROM items WHERE id = 3"
	for router := range 2 {
		first := as(router, old)
		expect(t, first, who, old+"|"+old+"\nSELECT 1")
		expect(t, first, where, "n3\nSELECT 1")
		testClose(t, first)
	}
	stays := as(1, old)
	expect(t, stays, where, "n3\nSELECT 1")
	mustExec(t, admin, "ALTER ROLE "+old+" RENAME TO "+now)
	mustSimple(t, admin, "CREATE ROLE "+old+" LOGIN")
	for router := range 2 {
		second := as(router, old)
		expect(t, second, who, old+"|"+old+"\nSELECT 1")
		expectError(t, second, where, "42501")
		testClose(t, second)
	}
	expectError(t, stays, where, "28000") // in Postgres it goes on under its new name
	mustSimple(t, admin, "DROP ROLE "+old+"; CREATE ROLE "+old+" LOGIN; GRANT SELECT ON items TO "+old)
	third := as(0, old)
	expect(t, third, who, old+"|"+old+"\nSELECT 1")
	expect(t, third, where, "n3\nSELECT 1")

	// So it is with roles that sessions take.
	user := b.connect(0)
	mustSimple(t, user, "SET ROLE "+now)
	expect(t, user, "SELECT current_user", now+"\nSELECT 1")
	expect(t, user, where, "n3\nSELECT 1")
	testClose(t, user)
	mustSimple(t, admin, "ALTER ROLE "+now+" RENAME TO "+now+"2; CREATE ROLE "+now)
	user = b.connect(0)
	mustSimple(t, user, "SET ROLE "+now)
	expect(t, user, "SELECT current_user", now+"\nSELECT 1")
	expectError(t, user, where, "42501")
	mustSimple(t, user, "RESET ROLE")
	mustSimple(t, admin, "DROP OWNED BY "+now+"2; DROP ROLE "+now+"2; DROP OWNED BY "+old)
}

func testClose(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
