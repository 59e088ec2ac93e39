package backend

import (
	"errors"
	"fmt"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// ErrStale says that the server had closed a pooled connection before it was given any byte of the request: nothing
// can have run, and the request may be sent again on another connection. Only the first Write after Acquire returns it.
var ErrStale = errors.New("server connection was closed while it was idle")

// ErrClosed is returned by Acquire and Service after Close.
var ErrClosed = pgerr.New(pgerr.AdminShutdown, "the router is shutting down")

// FloorError says that a shard no longer accepts the epoch that the statement was planned under: the caller waits for
// a newer map, plans again and retries. Nothing was sent to the shard.
type FloorError struct {
	Shard directory.ShardID
	Floor directory.Epoch // the oldest epoch that the shard accepts
	Epoch directory.Epoch // that of the caller
}

// Error says which shard wants which epoch.
func (e *FloorError) Error() string {
	return fmt.Sprintf("shard %s accepts no map older than epoch %d, this router has %d", e.Shard, e.Floor, e.Epoch)
}

// SQLState returns 57P03, cannot_connect_now.
func (e *FloorError) SQLState() string { return pgerr.CannotConnectNow }

// Hint says what to do.
func (e *FloorError) Hint() string {
	return "The router waits for the newer partition map; if this stays, check that it reaches etcd."
}
