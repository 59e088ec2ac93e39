package router_test

import (
	"context"
	"testing"
	"time"

	"github.com/shardyard/shardyard/internal/node"
)

// A shard that hangs answers neither statements nor cancel requests; the router ends all the same, in each mode.
func TestEndThoughAShardHangs(t *testing.T) {
	var beds []*bed
	answered, closed := make(chan error, 2), make(chan struct{}, 2)
	ask := make(chan struct{})
	for _, fresh := range []bool{false, true} {
		b := newBed(t, 1, func(c *node.Config) { c.Router.EventLoop = fresh })
		conn := b.connect(0)
		mustSimple(t, conn, "SELECT 1")
		beds = append(beds, b)
		go func() {
			<-ask
			_, err := conn.PgConn().Exec(t.Context(), "SELECT 2").ReadAll()
			answered <- err
		}()
	}
	if err := cluster.PauseShard(0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cluster.ResumeShard(0); err != nil {
			t.Error(err)
		}
	}()
	close(ask)
	select {
	case err := <-answered:
		t.Fatalf("a paused shard answered: %v", err)
	case <-time.After(300 * time.Millisecond): // the statements are on their way
	}
	for _, b := range beds {
		running := b.Routers[0]
		b.Routers = nil
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = running.Close(ctx) // the time to drain is over: that is an error, and as it should be
			closed <- struct{}{}
		}()
	}
	late := time.After(30 * time.Second)
	for range beds {
		select {
		case <-closed:
		case <-late:
			t.Fatal("a router does not end")
		}
		if err := <-answered; err == nil {
			t.Error("a client got an answer")
		}
	}
}
