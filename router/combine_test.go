package router_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A query that is combined is described, fetched in parts, and fails, as on one Postgres.
func TestCombineFrames(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		plain := plainShop(t)
		ours := dialRaw(t, b.Routers[0].Addr().String(), rawStartup(0, "user", "postgres", "database", b.database)).begin()
		theirs := dialRaw(t, plainAddress(t, plain), rawStartup(0, "user", "postgres", "database", plain)).begin()
		query := parseFrame("q", "SELECT i.id % $1 AS r, count(*), max(feel) FROM items i JOIN plain p ON p.item = i.id WHERE i.id < $2 GROUP BY 1 ORDER BY 1")
		begin, commit := rawFrame('Q', "BEGIN\x00"), rawFrame('Q', "COMMIT\x00")
		describe := slices.Concat(rawFrame('D', "Sq\x00"), rawFrame('D', "Pp\x00"))
		for name, frames := range map[string][]byte{
			"whole":              slices.Concat(query, bindFrame("p", "q", "4", "9"), describe, executeFrame("p", 0)),
			"in parts":           slices.Concat(begin, query, bindFrame("p", "q", "4", "9"), executeFrame("p", 2), executeFrame("p", 1), executeFrame("p", 9), executeFrame("p", 0), rawFrame('S'), commit),
			"over syncs":         slices.Concat(begin, query, bindFrame("p", "q", "4", "9"), executeFrame("p", 1), rawFrame('S'), executeFrame("p", 1), rawFrame('S'), executeFrame("p", 0), rawFrame('S'), commit),
			"given up":           slices.Concat(begin, query, bindFrame("p", "q", "4", "9"), executeFrame("p", 1), rawFrame('S'), commit, executeFrame("p", 1), rawFrame('S')),
			"closed":             slices.Concat(begin, query, bindFrame("p", "q", "4", "9"), executeFrame("p", 1), rawFrame('C', "Pp\x00"), rawFrame('S'), commit),
			"fails":              slices.Concat(query, bindFrame("p", "q", "0", "9"), executeFrame("p", 0)),
			"fails in a block":   slices.Concat(begin, query, bindFrame("p", "q", "0", "9"), executeFrame("p", 0), rawFrame('S'), rawFrame('Q', "SELECT 1\x00"), rawFrame('Q', "ROLLBACK\x00")),
			"two at once":        slices.Concat(begin, query, bindFrame("p", "q", "4", "9"), bindFrame("o", "q", "3", "9"), executeFrame("p", 1), executeFrame("o", 1), executeFrame("p", 0), executeFrame("o", 0), rawFrame('S'), commit),
			"behind others":      slices.Concat(parseFrame("", "SELECT 1"), bindFrame("", ""), executeFrame("", 0), query, bindFrame("p", "q", "4", "9"), executeFrame("p", 0), bindFrame("o", "q", "4", "x"), executeFrame("o", 0)),
			"too few parameters": slices.Concat(query, bindFrame("p", "q", "4"), executeFrame("p", 0)),
		} {
			ours.send(frames, ending)
			theirs.send(frames, ending)
			got, want := ours.answers(), theirs.answers()
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n  router %s\nPostgres %s", name, strings.Join(got, "\n         "), strings.Join(want, "\n         "))
			}
			ours.clear()
			theirs.clear()
		}
		b.await("connections to be given back", func() bool { return b.busyServers() == 0 })
	})
}

// A query that is combined can be cancelled wherever it is, and loses its connections without harm to the session.
func TestCombineEnds(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	for _, slow := range []string{"SELECT count(*), max(pg_sleep(60)::text) FROM items", "SELECT count(*) FROM items, pg_sleep(60)"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		other := b.connect(0)
		_, err := other.PgConn().Exec(ctx, slow).ReadAll()
		cancel()
		if err == nil {
			t.Errorf("%s ended", slow)
		}
	}
	b.await("connections to be given back", func() bool { return b.busyServers() == 0 })

	ended := make(chan error, 1)
	go func() {
		_, err := simple(t, conn, "SELECT count(*), 'lost' FROM items, pg_sleep(30)")
		ended <- err
	}()
	b.await("the query to be ended", func() bool {
		direct(t, 0, b.database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%''lost''%' AND query NOT LIKE '%pg_terminate%' AND state = 'active'")
		select {
		case err := <-ended:
			if code(err) != "08006" && code(err) != "57P01" {
				t.Errorf("lost: %v", err)
			}
			return true
		default:
			return false
		}
	})
	expect(t, conn, "SELECT count(*) FROM items", "10\nSELECT 1")
	expect(t, conn, "BEGIN; INSERT INTO items VALUES (77); SELECT count(*) FROM items; ROLLBACK", "BEGIN\nINSERT 0 1\n11\nSELECT 1\nROLLBACK")
}

// Sessions that each hold connections and want one more for what they combine do not wait for each other for ever.
func TestCombineWithSmallPools(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	shop(t, b)
	const sessions = 40 // more than a pool has connections
	errs := make(chan error, sessions)
	for range sessions {
		conn := b.connect(0)
		go func() { errs <- combineOften(t.Context(), conn) }()
	}
	for range sessions {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	// The pool beside the ordinary one is no row, and no metric, of its own.
	seen := make(map[string]bool)
	for _, p := range b.Routers[0].State().Pools {
		place := string(p.Shard) + "/" + p.Identity.Database + "/" + p.Identity.User
		if seen[place] {
			t.Errorf("%s is told twice", place)
		}
		seen[place] = true
	}
}

func combineOften(ctx context.Context, conn *pgx.Conn) error {
	for range 5 {
		var n, top int
		if err := conn.QueryRow(ctx, "SELECT count(*), max(p.item) FROM items i JOIN plain p ON p.item = i.id").Scan(&n, &top); err != nil {
			return err
		}
		if n != 10 || top != 9 {
			return fmt.Errorf("%d rows, up to %d", n, top)
		}
	}
	return nil
}
