package deadlock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
)

// maxWaits bounds what is read of one shard.
const maxWaits = 5000

// waitsQuery lists who waits for whom on a server, all of its databases. pg_blocking_pids names a prepared
// transaction 0: it waits for nothing any more, so it is in no circle and is left out.
const waitsQuery = `
WITH ungranted AS MATERIALIZED (
	SELECT * FROM pg_catalog.pg_locks WHERE NOT granted AND pid IS NOT NULL
), waiting AS MATERIALIZED (
	SELECT DISTINCT ON (pid) pid, waitstart, mode, locktype, CASE locktype
		WHEN 'transactionid' THEN 'transaction ' || transactionid::text
		WHEN 'virtualxid' THEN 'virtual transaction ' || virtualxid
		WHEN 'relation' THEN 'relation ' || relation || ' of database ' || database
		WHEN 'extend' THEN 'extension of relation ' || relation || ' of database ' || database
		WHEN 'page' THEN 'page ' || page || ' of relation ' || relation || ' of database ' || database
		WHEN 'tuple' THEN 'tuple (' || page || ',' || tuple || ') of relation ' || relation || ' of database ' || database
		WHEN 'object' THEN 'object ' || objid || ' of class ' || classid || ' of database ' || database
		WHEN 'advisory' THEN 'advisory lock [' || database || ',' || classid || ',' || objid || ',' || objsubid || ']'
		ELSE locktype END AS lock
	FROM ungranted ORDER BY pid
), blocked AS MATERIALIZED (
	SELECT DISTINCT w.pid, b.pid AS holder
	FROM waiting w CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(w.pid)) AS b(pid)
	WHERE b.pid <> 0
	LIMIT $1
), activity AS MATERIALIZED (
	SELECT pid, coalesce(application_name, '') AS name, xact_start
	FROM pg_catalog.pg_stat_activity
	WHERE pid IN (SELECT pid FROM blocked UNION SELECT holder FROM blocked)
)
SELECT w.pid, wa.name, wa.xact_start, h.pid, h.name, h.xact_start, w.waitstart, w.lock,
	CASE WHEN w.mode ~ '^[A-Z]' THEN w.mode ELSE 'lock' END
FROM blocked b
JOIN waiting w ON w.pid = b.pid
JOIN activity wa ON wa.pid = b.pid
JOIN activity h ON h.pid = b.holder
WHERE wa.xact_start IS NOT NULL AND h.xact_start IS NOT NULL`

// load reads the waits of one shard.
func load(ctx context.Context, conn *pgx.Conn, shard directory.ShardID) ([]Wait, error) {
	rows, err := conn.Query(ctx, waitsQuery, pgx.QueryExecModeExec, maxWaits)
	if err != nil {
		return nil, fmt.Errorf("read the waits of shard %s: %w", shard, err)
	}
	defer rows.Close()
	var waits []Wait
	for rows.Next() {
		w := Wait{Waiter: Process{Backend: Backend{Shard: shard}}, Holder: Process{Backend: Backend{Shard: shard}}}
		var waiter, holder string
		var since *time.Time // null for a moment at the beginning of a wait
		if err := rows.Scan(&w.Waiter.PID, &waiter, &w.Waiter.Began, &w.Holder.PID, &holder, &w.Holder.Began,
			&since, &w.Lock, &w.Mode); err != nil {
			return nil, fmt.Errorf("read the waits of shard %s: %w", shard, err)
		}
		if since == nil {
			continue
		}
		w.Since = *since
		w.Waiter.Session, w.Holder.Session = session(waiter, w.Waiter.Backend), session(holder, w.Holder.Backend)
		waits = append(waits, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the waits of shard %s: %w", shard, err)
	}
	return waits, nil
}

// applicationPrefix begins the application_name of every server connection of a router.
const applicationPrefix = "shardyard/"

// session names the session that a process works for. The first connection of a transaction has the plain name of
// its router; the others carry a name that is made of the first (backend.MemberName).
func session(application string, b Backend) string {
	switch {
	case !strings.HasPrefix(application, applicationPrefix):
		return b.String()
	case strings.HasSuffix(application, "."):
		if name := backend.MemberName(application, b.Shard, b.PID); name != "" {
			return name
		}
		return b.String()
	}
	return application
}
