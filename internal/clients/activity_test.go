package clients

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// running counts the statements with the marker that run on a server.
func running(t *testing.T, url, marker string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var n int
	err = conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE state = 'active' AND wait_event = 'PgSleep' AND position($1 in query) > 0 AND pid <> pg_backend_pid()`, marker).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// everyServer is where a statement may run: the plain Postgres and the shards.
func everyServer() []string {
	urls := []string{bed.Plain.ConnString(0, "postgres")}
	for i := range bed.Shards.Shards() {
		urls = append(urls, bed.Shards.ConnString(i, "postgres"))
	}
	return urls
}

// waitForSleepers waits until a statement with the marker sleeps on each of the servers; nil: on any.
func waitForSleepers(t *testing.T, servers []string, marker string) {
	t.Helper()
	poll(t, marker+" is not running", func() bool {
		if servers == nil {
			for _, url := range everyServer() {
				if running(t, url, marker) > 0 {
					return true
				}
			}
			return false
		}
		for _, url := range servers {
			if running(t, url, marker) == 0 {
				return false
			}
		}
		return true
	})
}

// waitUntilIdle waits until no statement with the marker runs anywhere.
func waitUntilIdle(t *testing.T, marker string) {
	t.Helper()
	poll(t, marker+" still runs", func() bool {
		for _, url := range everyServer() {
			if running(t, url, marker) > 0 {
				return false
			}
		}
		return true
	})
}

// pollTimeout bounds the wait for a condition.
const pollTimeout = 10 * time.Second

func poll(t *testing.T, failure string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(pollTimeout); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(strings.TrimSpace(failure))
		}
	}
}
