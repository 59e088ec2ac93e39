package router_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// A PREPARE TRANSACTION that fails ends the transaction, as a COMMIT that fails does.
func TestFailedPrepareEndsTheTransaction(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		for _, begin := range []string{"BEGIN; UPDATE items SET name = 'prepared'", "BEGIN; LISTEN somebody"} {
			mustSimple(t, conn, begin)
			_, err := simple(t, conn, "PREPARE TRANSACTION 'refused'")
			var told *pgconn.PgError
			if !errors.As(err, &told) || told.Code != "0A000" {
				t.Errorf("%s: PREPARE TRANSACTION: %v", begin, err)
			}
			if status := conn.PgConn().TxStatus(); status != 'I' {
				t.Errorf("%s: the session is in state %c", begin, status)
			}
			expect(t, conn, "SELECT id FROM items WHERE name = 'prepared'", "SELECT 0")
		}
	})
}
