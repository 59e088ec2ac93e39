package router

import (
	"context"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// loadCatalog reads the catalog of a map's database from its shards.
func (s *Server) loadCatalog(ctx context.Context, m *directory.Map) (*catalog.Snapshot, error) {
	return s.catalogs.Load(ctx, m, s.pools)
}
