package router

import (
	"context"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/deadlock"
	"github.com/shardyard/shardyard/router/pgerr"
)

// detectDeadlocks ends transactions of this router that are in a deadlock over several shards, until ctx ends.
func (s *Server) detectDeadlocks(ctx context.Context) {
	detector, err := deadlock.New(deadlock.Config{
		Running: s.runningLonger, Shards: s.shards, Dial: s.pools.Service, Log: s.log,
	})
	if err != nil {
		s.log.Error("deadlocks over several shards are not detected", "error", err)
		return
	}
	detector.Run(ctx)
}

// shards are those of the cluster.
func (s *Server) shards() []directory.Shard {
	if cluster := s.current.Load(); cluster != nil {
		return cluster.Shards
	}
	return nil
}

// runningLonger are the statements that have been running for longer than this on some shard.
func (s *Server) runningLonger(longer time.Duration) []deadlock.Statement {
	var statements []deadlock.Statement
	now := time.Now().UnixNano()
	for _, c := range s.snapshotClients() {
		if since := c.busySince.Load(); since == 0 || now-since < int64(longer) || c.x == nil {
			continue
		}
		request, connections := c.x.Running()
		st := deadlock.Statement{SessionID: c.id, Cancel: func(ctx context.Context, reason *pgerr.Error) {
			c.x.Break(ctx, request, reason)
		}}
		for _, k := range connections {
			if shard, pid, held := k.Backend(); held {
				st.Backends = append(st.Backends, deadlock.Backend{Shard: shard, PID: pid})
			}
		}
		if len(st.Backends) > 0 {
			statements = append(statements, st)
		}
	}
	return statements
}
