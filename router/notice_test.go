package router_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A notice reaches the client while its statement is still running.
func TestNoticesComeAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		holder, conn := b.connect(0), b.connect(0)
		mustSimple(t, holder, "BEGIN; SELECT pg_advisory_xact_lock(7700)")
		for _, sql := range []string{
			"DO $$ BEGIN RAISE NOTICE 'now'; PERFORM pg_advisory_xact_lock(7700); END $$",
			"SELECT 1; DO $$ BEGIN RAISE NOTICE 'now'; PERFORM pg_advisory_xact_lock(7700); END $$",
		} {
			front := conn.PgConn().Frontend()
			front.Send(&pgproto3.Query{String: sql})
			if err := front.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := conn.PgConn().Conn().SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for told := false; ; {
				message, err := front.Receive()
				if err != nil {
					t.Fatalf("%s: waited for the notice: %s", sql, err)
				}
				if notice, ok := message.(*pgproto3.NoticeResponse); ok && notice.Message == "now" {
					told = true
					mustSimple(t, holder, "COMMIT; BEGIN")
				}
				if _, ok := message.(*pgproto3.ReadyForQuery); ok {
					if !told {
						t.Errorf("%s: no notice", sql)
					}
					break
				}
			}
			mustSimple(t, holder, "SELECT pg_advisory_xact_lock(7700)")
		}
	})
}
