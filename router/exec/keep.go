package exec

import "context"

// KeepConnections makes the session keep each connection from its first use to its end: session pooling.
func (x *Executor) KeepConnections() { x.keeps = true }

// KeepsConnections reports whether KeepConnections was called.
func (x *Executor) KeepsConnections() bool { return x.keeps }

// renew gives back a kept connection that no session is to use any more, unless the session has something on it.
func (x *Executor) renew(l *Link) (gone bool) {
	if !x.keeps || l.begun || l.pipelined || l.kept || l.pinned != "" || !l.conn.Retired() {
		return false
	}
	for i, other := range x.links {
		if other == l {
			x.links = append(x.links[:i], x.links[i+1:]...)
			break
		}
	}
	x.pools.Release(l.conn)
	return true
}

// DiscardAll runs DISCARD ALL on the connections that the session keeps, outside of a transaction. All pins end.
func (x *Executor) DiscardAll(ctx context.Context) error {
	x.Unpin()
	if !x.keeps {
		return nil // they are cleaned when they are given back
	}
	if err := x.DrainAll(ctx); err != nil {
		return err
	}
	for i := 0; i < len(x.links); i++ {
		l := x.links[i]
		for _, sql := range []string{"RESET ROLE", "DISCARD ALL"} {
			if err := x.Command(ctx, l, sql); err != nil {
				return err
			}
		}
		l.unnamed = 0
		l.conn.MarkDrawn(0)
	}
	return nil
}
