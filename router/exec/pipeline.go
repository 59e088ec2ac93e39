package exec

import (
	"context"
	"io"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Statement is a statement of the extended protocol as shards get it.
type Statement struct {
	// ID tells this statement from every other of the session; it is never used twice.
	ID    uint64
	Text  string
	Types []uint32 // declared parameter types, the home shard's OIDs
	// Key is its content (backend.PreparedKey). "" is for a statement that is sent as the server's unnamed one.
	Key string
	// Settings are those that it was parsed under: they are part of its meaning.
	Settings *backend.Settings
	// Meaning is the part of Settings that changes what a statement means.
	Meaning string
	// NoPosition: Text is not what the client sent.
	NoPosition bool
	// Part, unless nil, is all of Text that the client sent.
	Part *Part
	// Parsed: a shard accepted it, in answer to the client's Parse.
	Parsed bool
}

// Portal is where a bound statement waits on a shard.
type Portal struct {
	link *Link
	name string
	rows rowTranslation
	used bool
	// readOnly is that of its plan.
	readOnly   bool
	noPosition bool
	part       *Part
}

// AdoptPortal is a portal that the shard has already: a cursor that SQL declared.
func AdoptPortal(l *Link, name string) Portal { return Portal{link: l, name: name, readOnly: true} }

// Reset makes the portal one that is bound to no link, and keeps its buffers.
func (p *Portal) Reset() { *p = Portal{rows: rowTranslation{types: p.rows.types[:0]}} }

// Link is the portal's; nil if it is bound to none.
func (p *Portal) Link() *Link { return p.link }

// fewLinks is how many links are listed without an allocation.
const fewLinks = 4

// Focus makes the link the one whose answers come next: what others still owe is read before.
func (x *Executor) Focus(ctx context.Context, l *Link) error {
	var few [fewLinks]*Link
	for _, other := range append(few[:0], x.links...) {
		if other != l {
			if err := x.Drain(ctx, other); err != nil {
				return err
			}
		}
	}
	return nil
}

// Parse makes sure that the link has the statement, and returns its name there. answer: the client waits
// for a ParseComplete.
func (x *Executor) Parse(ctx context.Context, l *Link, st *Statement, answer bool, meaning string) (string, error) {
	if st.Key == "" {
		if l.unnamed == st.ID && !answer {
			return "", nil
		}
		l.unnamed = st.ID
		return "", x.sendParse(ctx, l, st, "", answer, meaning)
	}
	if name, ok := l.conn.Prepared(st.Key); ok {
		if answer {
			st.Parsed = true
			x.queue(l, step{kind: stepLocal, own: parseComplete}, noMessage)
		}
		return name, nil
	}
	name := l.conn.Prepare(st.Key)
	return name, x.sendParse(ctx, l, st, name, answer, meaning)
}

var parseComplete = wire.AppendParseComplete(nil)

func noMessage(dst []byte) []byte { return dst }

func (x *Executor) sendParse(ctx context.Context, l *Link, st *Statement, name string, answer bool, meaning string) error {
	types, err := l.toShardTypes(st.Types)
	if err != nil {
		return err
	}
	// Constants of date and time types, among others, are fixed when a statement is parsed: one that was
	// parsed under other settings must be parsed under them on this connection too.
	other := st.Meaning != meaning && !answer
	if other {
		wanted := x.settings
		x.settings = st.Settings
		err := x.applySettings(ctx, l)
		defer func() { x.settings = wanted }()
		if err != nil {
			return err
		}
	}
	l.out = l.conn.AppendCloses(l.out)
	if st.Key != "" {
		x.usage.parses++
	}
	l.pipelined = true
	l.out = wire.AppendParse(l.out, name, st.Text, types)
	l.steps = append(l.steps, step{kind: stepParse, key: st.Key, silent: !answer, noPosition: st.NoPosition, part: st.Part, statement: st})
	if !other {
		return nil
	}
	if err := x.Drain(ctx, l); err != nil {
		return err
	}
	if !l.begun { // close the implicit transaction, so that settings can be applied
		if err := x.syncLink(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// Bind binds a portal on the link. tail is the client's message behind its two names.
func (x *Executor) Bind(l *Link, p *Portal, portal, statement string, tail []byte, answer bool) {
	p.link, p.name, p.used = l, portal, false
	p.rows.none()
	l.pipelined = true
	l.out = wire.AppendBindTail(l.out, portal, statement, tail)
	l.steps = append(l.steps, step{kind: stepBind, silent: !answer, noPosition: p.noPosition, part: p.part})
}

// DescribeRows asks for the description of a portal for our own use, where its rows may have to be translated.
func (x *Executor) DescribeRows(p *Portal, bind *wire.Bind) {
	l := p.link
	if l.oids == nil || !slices.ContainsFunc(bind.ResultFormats, func(f int16) bool { return f == 1 }) {
		return
	}
	x.describePortal(p, true, nil)
}

// DescribePortal describes a bound portal to the client.
func (x *Executor) DescribePortal(p *Portal) { x.describePortal(p, false, nil) }

func (x *Executor) describePortal(p *Portal, silent bool, seen *Description) {
	p.link.out = wire.AppendDescribe(p.link.out, wire.ObjectPortal, p.name)
	p.link.pipelined = true
	p.link.steps = append(p.link.steps,
		step{kind: stepDescribe, silent: silent, rows: &p.rows, seen: seen, noPosition: p.noPosition, part: p.part})
}

// DescribeStatement describes a statement, to the client unless silent. What was said is in seen after Drain.
func (x *Executor) DescribeStatement(l *Link, name string, silent bool, seen *Description) {
	l.pipelined = true
	l.out = wire.AppendDescribe(l.out, wire.ObjectStatement, name)
	l.steps = append(l.steps, step{kind: stepStatement, silent: silent, seen: seen})
}

// Execute runs a bound portal; maxRows 0 means all rows.
func (x *Executor) Execute(p *Portal, maxRows int32) {
	l := p.link
	x.Used(l, p.readOnly)
	l.alone = true
	l.pipelined = true
	l.out = wire.AppendExecute(l.out, p.name, maxRows)
	l.steps = append(l.steps, step{kind: stepExecute, rows: &p.rows, noPosition: p.noPosition, part: p.part, hold: l.holds()})
}

// ClosePortal closes a bound portal; answer: the client waits for the CloseComplete.
func (x *Executor) ClosePortal(p *Portal, answer bool) {
	l := p.link
	l.pipelined = true
	l.out = wire.AppendClose(l.out, wire.ObjectPortal, p.name)
	l.steps = append(l.steps, step{kind: stepClose, silent: !answer})
}

// SetReadOnly says what Execute may assume of the portal.
func (p *Portal) SetReadOnly(readOnly bool) { p.readOnly = readOnly }

// SetPart says what of the text that the shard got the client sent; nil: all.
func (p *Portal) SetPart(part *Part) { p.part = part }

// SetNoPosition says that the shard got another text than the client sent.
func (p *Portal) SetNoPosition(no bool) { p.noPosition = no }

// Sync ends the pipeline on every link: implicit transactions commit, unless failed. It returns the first error.
func (x *Executor) Sync(ctx context.Context, failed bool) error {
	var first error
	if !failed && !x.tx.block {
		if first = x.settleWatched(ctx, true); first == nil {
			first = x.settleMirrors(ctx, true)
		}
		failed = first != nil
	}
	if !failed && !x.tx.block && x.severalWriters() {
		if first = x.DrainAll(ctx); first == nil {
			return x.syncTogether(ctx)
		}
		failed = true
	}
	var few [fewLinks]*Link
	for _, l := range append(few[:0], x.links...) {
		if !l.pipelined {
			if err := x.Drain(ctx, l); err != nil && first == nil {
				first, failed = err, true
			}
			continue
		}
		if failed && !l.begun && !l.skipping && l.wrote {
			// Another part of the implicit transaction failed: this one must not be committed by Sync.
			x.queueExtended(l, "ROLLBACK")
		}
		if err := x.syncLink(ctx, l); err != nil && first == nil {
			first, failed = err, true
		}
	}
	if !x.tx.block {
		x.tx.present = ""
		for _, l := range x.links {
			l.endTransaction()
		}
		x.releaseSides()
		x.releaseIdle()
	}
	return first
}

func (x *Executor) syncLink(ctx context.Context, l *Link) error {
	lost := l.skipping
	l.out = wire.AppendSync(l.out)
	l.steps = append(l.steps, step{kind: stepSync})
	wrote := l.wrote && !l.begun
	err := x.run(ctx, l)
	if l.conn.Broken() && wrote && err != nil && !isServerError(err) {
		return pgerr.Newf(pgerr.OutcomeUnknown,
			"the connection to shard %s was lost while it committed; the outcome is unknown", l.shard).Because(err)
	}
	if !l.begun && len(l.saved) > 0 {
		if err != nil || lost {
			l.conn.SetSettings(l.saved[0])
		}
		l.saved = l.saved[:0]
	}
	return err
}

// queueExtended queues a statement of ours within a pipeline, where a Query would end the implicit transaction.
func (x *Executor) queueExtended(l *Link, sql string) {
	l.pipelined = true
	l.unnamed = 0
	l.out = wire.AppendParse(l.out, "", sql, nil)
	l.out = wire.AppendBind(l.out, "", "", nil, nil, nil)
	l.out = wire.AppendExecute(l.out, "", 0)
	l.steps = append(l.steps, step{kind: stepParse, silent: true}, step{kind: stepBind, silent: true},
		step{kind: stepExecute, silent: true})
}

// SyncLink ends the pipeline of one link.
func (x *Executor) SyncLink(ctx context.Context, l *Link) error { return x.syncLink(ctx, l) }

// PrepareNow prepares a statement on a link that a Query follows on.
func (x *Executor) PrepareNow(ctx context.Context, l *Link, st *Statement, meaning string) (name string, err error) {
	if name, err = x.Parse(ctx, l, st, false, meaning); err != nil {
		if !l.conn.Broken() { // the server skips everything up to a Sync
			_ = x.syncLink(ctx, l) // the first error counts
		}
		return "", err
	}
	return name, x.syncLink(ctx, l)
}

// ParseElsewhere parses a statement on a connection of its own, outside of the session's transaction, and
// returns the shard's error.
func (x *Executor) ParseElsewhere(ctx context.Context, shard directory.ShardID, sql string) error {
	own := New(x.pools, NewOutput(io.Discard, 0), x.identity, nil)
	own.SetView(x.view)
	own.SetSettings(x.settings)
	own.ServeRole(x.role, x.disowned)
	defer own.Release()
	l, err := own.Link(ctx, shard)
	if err != nil {
		return err
	}
	_, err = own.PrepareNow(ctx, l, &Statement{ID: 1, Text: sql}, "")
	return err
}
