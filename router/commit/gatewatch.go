package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shardyard/shardyard/directory"
)

// Process is a server process whose snapshot a reader waits for.
type Process struct {
	Shard directory.ShardID
	PID   uint32
}

const (
	// watchPause is the pause between two looks at processes.
	watchPause = time.Millisecond
	// watchState says of a process: whether it has begun its present message since the shard was locked and, if so,
	// whether it has a snapshot, waits for a lock, or is done and waits for its client. The activity that a transaction has
	// seen once it sees for ever, unless it forgets it; that is the first row.
	watchState = `SELECT pg_catalog.pg_stat_clear_snapshot(); SELECT a.query_start > pg_catalog.now() AND
	(a.backend_xmin IS NOT NULL OR a.wait_event_type = 'Lock' OR a.wait_event = 'ClientRead' OR a.state <> 'active')
FROM pg_catalog.pg_stat_get_activity(%d) AS a`
)

// AwaitSnapshots returns when each process, which was sent the message that takes its snapshot after Hold, has
// taken it, or waits for a lock, or has ended; or when ctx ends, which is an error.
func (h *Hold) AwaitSnapshots(ctx context.Context, processes []Process) error {
	r := h.round
	for {
		var err error
		if processes, err = r.without(processes); err != nil || len(processes) == 0 {
			return err
		}
		if err := sleep(ctx, watchPause); err != nil {
			return err
		}
	}
}

// without looks at processes and returns those without a snapshot.
func (r *round) without(processes []Process) ([]Process, error) {
	r.work.Lock()
	defer r.work.Unlock()
	type asked struct {
		process Process
		conn    *gateConn
	}
	var questions []asked
	for _, p := range processes {
		for _, c := range r.conns {
			if c.shard == p.Shard {
				c.send(fmt.Sprintf(watchState, p.PID))
				questions = append(questions, asked{p, c})
			}
		}
	}
	var rest []Process
	var failed error
	for _, q := range questions {
		rows, err := q.conn.receive()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("look at process %d of shard %s: %w", q.process.PID, q.process.Shard, err))
		} else if len(rows) > 1 && rows[1][0] != "t" { // one that is gone needs no snapshot
			rest = append(rest, q.process)
		}
	}
	return rest, failed
}
