package router_test

import (
	"context"
	"testing"
	"time"
)

// A shard that hangs answers neither statements nor cancel requests; the router ends all the same.
func TestEndThoughAShardHangs(t *testing.T) {
	eachMode(t, func(t *testing.T, b *bed) {
		conn := b.connect(0)
		mustSimple(t, conn, "SELECT 1")
		running := b.Routers[0]
		if err := cluster.PauseShard(0); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := cluster.ResumeShard(0); err != nil {
				t.Error(err)
			}
		}()
		answered := make(chan error, 1)
		go func() {
			_, err := conn.PgConn().Exec(t.Context(), "SELECT 2").ReadAll()
			answered <- err
		}()
		select {
		case err := <-answered:
			t.Fatalf("a paused shard answered: %v", err)
		case <-time.After(300 * time.Millisecond): // the statement is on its way
		}
		b.Routers = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = running.Close(ctx) // the time to drain is over: that is an error, and as it should be
		}()
		select {
		case <-closed:
		case <-time.After(30 * time.Second):
			t.Fatal("the router does not end")
		}
		if err := <-answered; err == nil {
			t.Error("the client got an answer")
		}
	})
}
