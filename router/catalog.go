package router

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// loadCatalog reads the catalog of a map's database from its shards.
func (s *Server) loadCatalog(ctx context.Context, m *directory.Map) (*catalog.Snapshot, error) {
	dial := func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
		return s.pools.Service(ctx, shard, database)
	}
	return s.catalogs.Load(ctx, m, dial)
}
