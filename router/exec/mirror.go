package exec

import (
	"context"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// SetSecrets gives the executor what proves to shards that mirrored writes and decisions are the router's.
func (x *Executor) SetSecrets(secrets *mirror.Secrets) { x.secrets = secrets }

// Captures says before a statement runs on a link that it may write what is mirrored. Its command tag is held back
// until Settle, which must follow.
func (x *Executor) Captures(l *Link) { l.captured, l.unsettled = true, true }

// Settle follows a statement that captures: it brings the mirrors into line, within the transaction, and lets the
// client have the command tag. So what a mirror refuses (a foreign key holds there) is the statement's own error.
func (x *Executor) Settle(ctx context.Context) error {
	err := x.settleWatched(ctx, false)
	if err == nil {
		err = x.settleMirrors(ctx, false)
	}
	if err != nil {
		x.heldTag = x.heldTag[:0]
		return err
	}
	held := x.heldTag
	x.heldTag = x.heldTag[:0]
	if len(held) == 0 {
		return nil
	}
	return x.out.Append(held)
}

// capturing reports whether something captured may not be on the mirrors yet.
func (x *Executor) capturing() bool {
	return slices.ContainsFunc(x.links, func(l *Link) bool { return l.unsettled })
}

// settleMirrors writes on the mirrors what the transaction has captured. last: the transaction is to end, so what is
// deferred runs first. It captures too, and once it has run nothing more can be deferred.
func (x *Executor) settleMirrors(ctx context.Context, last bool) error {
	var few [fewLinks]*Link
	for _, l := range append(few[:0], x.links...) {
		if !l.unsettled && !(last && l.captured) {
			continue
		}
		if last {
			if err := x.runDeferred(ctx, l); err != nil {
				return err
			}
		}
		if err := x.settleLink(ctx, l); err != nil {
			return err
		}
		l.unsettled = false
	}
	return nil
}

// settleLink drains the outbox of one authority.
func (x *Executor) settleLink(ctx context.Context, l *Link) error {
	seal, err := x.seal(ctx, l, mirror.DrainMessage)
	if err != nil {
		return err
	}
	for {
		rows, err := x.askWith(ctx, l, mirror.DrainQuery, seal)
		if err != nil {
			return x.mirrorError(l, err)
		}
		if len(rows) == 0 {
			return nil
		}
		payloads := make(map[directory.ShardID][]string)
		var shards []directory.ShardID
		for _, row := range rows {
			if len(row) != 2 || row[0] == nil || row[1] == nil {
				continue // the table is gone
			}
			for _, shard := range mirror.Destinations(x.view.Map, *row[0]) {
				if payloads[shard] == nil {
					shards = append(shards, shard)
				}
				payloads[shard] = append(payloads[shard], *row[1])
			}
		}
		if err := x.applyMirrors(ctx, shards, payloads); err != nil {
			return err
		}
	}
}

// applyMirrors writes on all shards at once.
func (x *Executor) applyMirrors(ctx context.Context, shards []directory.ShardID, payloads map[directory.ShardID][]string) error {
	if err := x.DrainAll(ctx); err != nil {
		return err
	}
	if len(shards) > 0 && x.tx.isolated() && x.tx.block {
		if err := x.sameSnapshot(ctx, shards); err != nil {
			return err
		}
	}
	// gofail: var beforeMirror struct{}
	links := make([]*Link, 0, len(shards))
	var failed error
	for _, shard := range shards {
		l, err := x.linkWithoutFocus(ctx, shard)
		if err == nil {
			err = x.sendApply(ctx, l, strings.Join(payloads[shard], ","))
			links = append(links, l)
		}
		if err != nil {
			failed = err
			break
		}
	}
	for _, l := range links { // all of them, so that none owes an answer when one fails
		if err := x.Drain(ctx, l); err != nil && failed == nil {
			failed = x.mirrorError(l, err)
		}
		// gofail: var afterMirror struct{}
	}
	return failed
}

func (x *Executor) sendApply(ctx context.Context, l *Link, all string) error {
	if err := x.Drain(ctx, l); err != nil { // the BEGIN, if it has just been enlisted
		return err
	}
	seal, err := x.seal(ctx, l, mirror.ApplyMessage(all))
	if err != nil {
		return err
	}
	l.wrote = true
	x.queueWith(l, mirror.ApplyQuery, nil, all, seal)
	if l.pipelined && !l.endsWithReady() {
		l.out = wire.AppendFlush(l.out)
	}
	return x.sendOwed(l)
}

// seal proves a message to the shard of a link.
func (x *Executor) seal(ctx context.Context, l *Link, message string) (string, error) {
	shard, ok := x.view.Map.Shard(l.shard)
	if !ok {
		return "", pgerr.Newf(pgerr.InternalError, "shard %s is not in the map", l.shard)
	}
	secret, err := x.secrets.Of(ctx, *shard, x.identity.Database)
	if err != nil {
		return "", err
	}
	return mirror.Seal(secret, l.conn.PID(), message), nil
}

// mirrorError is an error of a mirrored write as the client gets it: where it happened within our functions is no
// concern of his.
func (x *Executor) mirrorError(l *Link, err error) error {
	x.forgetSecret(l, err)
	return pgerr.Of(err).Bare()
}

// forgetSecret drops the secret of a shard that refused a seal: the database may have been made anew.
func (x *Executor) forgetSecret(l *Link, err error) {
	if pgerr.Of(err).Code != "42501" {
		return
	}
	if shard, ok := x.view.Map.Shard(l.shard); ok {
		x.secrets.Forget(*shard, x.identity.Database)
	}
}

// mirrorPortal is the portal of our statements: the unnamed one may be the client's.
const mirrorPortal = "shardyard_mirror"

// queueWith queues a statement of ours with parameters, within a pipeline or a block. Its text says nothing of them:
// other sessions of the role may see it.
func (x *Executor) queueWith(l *Link, sql string, collect *[][]*string, params ...string) {
	values := make([][]byte, len(params))
	for i, p := range params {
		values[i] = []byte(p)
	}
	sync := l.begun && !l.pipelined
	l.pipelined = true
	l.unnamed = 0
	l.out = wire.AppendParse(l.out, "", sql, nil)
	l.out = wire.AppendBind(l.out, mirrorPortal, "", nil, values, nil)
	l.out = wire.AppendExecute(l.out, mirrorPortal, 0)
	l.out = wire.AppendClose(l.out, wire.ObjectPortal, mirrorPortal)
	l.steps = append(l.steps, step{kind: stepParse, silent: true}, step{kind: stepBind, silent: true},
		step{kind: stepExecute, silent: true, collect: collect}, step{kind: stepClose, silent: true})
	if sync {
		l.out = wire.AppendSync(l.out)
		l.steps = append(l.steps, step{kind: stepSync})
	}
}

// askWith is Ask with parameters.
func (x *Executor) askWith(ctx context.Context, l *Link, sql string, params ...string) ([][]*string, error) {
	if err := x.Focus(ctx, l); err != nil {
		return nil, err
	}
	if err := x.Drain(ctx, l); err != nil {
		return nil, err
	}
	var rows [][]*string
	x.queueWith(l, sql, &rows, params...)
	err := x.Drain(ctx, l)
	return rows, err
}
