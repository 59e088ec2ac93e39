package sequence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Config configures a Source.
type Config struct {
	// Dial opens a connection as the service role. Required.
	Dial func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	// Block bounds how many values of a sequence are drawn before somebody needs them. Defaults to 100.
	Block int
	// IdleTimeout closes connections that were not used for so long. Defaults to 30 s.
	IdleTimeout time.Duration
}

const (
	defaultBlock       = 100
	defaultIdleTimeout = 30 * time.Second
	// lockTimeout bounds the wait for a transaction that changes the sequence: the deadlock detector does not see it.
	lockTimeout = 30 * time.Second
	// maxBlocks and maxRoles bound what is remembered: sequences of all databases, and roles for each.
	maxBlocks = 10_000
	maxRoles  = 1_000
)

// Source hands out the values of the sequences of all databases. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu     sync.Mutex
	blocks map[key]*block
	lines  map[string]*line
}

type key struct {
	database string
	sequence directory.TableName
}

// block is what was drawn of a sequence and not handed out. Who has the place in lock owns the other fields.
type block struct {
	lock    chan struct{}
	catalog uint64
	state   string // of the sequence when the values were drawn
	values  []int64
	size    int // of the next draw
	roles   map[string]struct{}
	dropped bool // under Source.mu: what is drawn now is not for others
}

// line is the connection to the home shard of a database. Who has the place in lock owns the other fields.
type line struct {
	lock     chan struct{}
	conn     *pgx.Conn
	endpoint directory.Endpoint
	used     time.Time
}

// NewSource returns a Source without connections. Run must run for idle ones to be closed.
func NewSource(cfg Config) (*Source, error) {
	if cfg.Dial == nil {
		return nil, errors.New("configure sequences: Dial is required")
	}
	if cfg.Block <= 0 {
		cfg.Block = defaultBlock
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = defaultIdleTimeout
	}
	return &Source{cfg: cfg, blocks: make(map[key]*block), lines: make(map[string]*line)}, nil
}

// Request says what is drawn, and for whom.
type Request struct {
	Map *directory.Map
	// Catalog is the version of the catalog that the sequence's name is from. With a newer one it is asked whether the
	// sequence is still the same; if not, what was drawn of it is forgotten.
	Catalog  uint64
	Sequence directory.TableName
	// Role must have USAGE or UPDATE on the sequence, unless Granted.
	Role    string
	Granted bool
	// Ahead is how many values may be drawn before somebody needs them, where that is more than Config.Block: many more are going to be
	// asked for.
	Ahead int
}

// Draw hands out n values. Errors: 42501 without privilege; the home shard's own, whole (2200H at the end of a sequence);
// 08006 if it cannot be reached; ctx's. Values that were drawn in vain are lost.
func (s *Source) Draw(ctx context.Context, r Request, n int) ([]int64, error) {
	b := s.block(key{r.Map.Database, r.Sequence})
	if err := take(ctx, b.lock); err != nil {
		return nil, fmt.Errorf("draw from sequence %s: %w", r.Sequence, err)
	}
	defer func() { <-b.lock }()
	if err := s.refresh(ctx, r, b); err != nil {
		return nil, err
	}
	if _, known := b.roles[r.Role]; !known && !r.Granted {
		if err := s.onHome(ctx, r.Map, func(conn *pgx.Conn) error { return mayDraw(ctx, conn, r) }); err != nil {
			return nil, err
		}
		if b.roles == nil || len(b.roles) >= maxRoles {
			b.roles = make(map[string]struct{})
		}
		b.roles[r.Role] = struct{}{}
	}
	if missing := n - len(b.values); missing > 0 {
		drawn, err := s.drawn(ctx, r, b, missing)
		if err != nil {
			return nil, err
		}
		b.values = append(b.values, drawn...)
		b.size *= 2
	}
	values := append([]int64(nil), b.values[:n]...)
	b.values = b.values[n:]
	return values, nil
}

// refresh forgets what is known of the sequence if it was changed: ALTER SEQUENCE gives it another file.
func (s *Source) refresh(ctx context.Context, r Request, b *block) error {
	if r.Catalog > b.catalog || b.state == "" {
		var state string
		err := s.onHome(ctx, r.Map, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, stateQuery, r.Sequence.String()).Scan(&state)
		})
		if err != nil {
			return err
		}
		if state != b.state {
			b.values, b.size = nil, 1
		}
		// Invariant: state is from before the values were drawn, so a change in between is noticed later.
		b.catalog, b.state, b.roles = r.Catalog, state, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.dropped {
		b.values, b.size, b.dropped = nil, 1, false
	}
	return nil
}

// stateQuery gives what ALTER SEQUENCE changes, and DROP, CREATE and NoteSet.
const stateQuery = `SELECT pg_catalog.concat_ws('/', c.oid, c.relfilenode, s, n.times) FROM pg_catalog.pg_class c
 JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid LEFT JOIN shardyard.sequence_set n ON n.sequence = c.oid
 WHERE c.oid = $1::text::pg_catalog.regclass`

// NoteSet notes that a client has set a sequence, or (no name) sequences that are not known, by setval: with the next version of the
// catalog all routers forget what they have drawn of it.
func (s *Source) NoteSet(ctx context.Context, m *directory.Map, sequence directory.TableName) error {
	name := ""
	if sequence.Name != "" {
		name = sequence.String()
	}
	return s.onHome(ctx, m, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO shardyard.sequence_set (sequence)
 SELECT seqrelid FROM pg_catalog.pg_sequence WHERE $1 = '' OR seqrelid = NULLIF($1, '')::text::pg_catalog.regclass
 ON CONFLICT (sequence) DO UPDATE SET times = sequence_set.times + 1`, name)
		return err
	})
}

// drawn are at least so many new values; near the end of a sequence no more than needed.
func (s *Source) drawn(ctx context.Context, r Request, b *block, missing int) (values []int64, err error) {
	b.size = min(b.size, max(s.cfg.Block, r.Ahead))
	err = s.onHome(ctx, r.Map, func(conn *pgx.Conn) error {
		values, err = draw(ctx, conn, r.Sequence, missing, max(missing, b.size))
		return err
	})
	return values, err
}

// Drop forgets the values that were drawn from a sequence and not handed out; with no name those of all sequences of the database.
// Values that are drawn afterwards follow those that Postgres has given to others before the call.
func (s *Source) Drop(database string, sequence directory.TableName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, b := range s.blocks {
		if k.database == database && (sequence.Name == "" || k.sequence == sequence) {
			// Who draws right now keeps what it draws for itself.
			b.dropped = true
			delete(s.blocks, k)
		}
	}
}

// block finds or makes the block of a sequence.
func (s *Source) block(k key) *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[k]
	if b == nil {
		if len(s.blocks) >= maxBlocks {
			for other := range s.blocks { // any; its values are lost
				delete(s.blocks, other)
				break
			}
		}
		b = &block{lock: make(chan struct{}, 1), size: 1}
		s.blocks[k] = b
	}
	return b
}

// onHome runs f on the connection to the home shard, on a new one if the connection turns out to be lost before
// anything was sent.
func (s *Source) onHome(ctx context.Context, m *directory.Map, f func(*pgx.Conn) error) error {
	home, ok := m.Shard(m.Home)
	if !ok {
		return pgerr.New(pgerr.InternalError, "the map has no home shard")
	}
	s.mu.Lock()
	l := s.lines[m.Database]
	if l == nil {
		l = &line{lock: make(chan struct{}, 1)}
		s.lines[m.Database] = l
	}
	s.mu.Unlock()
	if err := take(ctx, l.lock); err != nil {
		return fmt.Errorf("draw from a sequence: %w", err)
	}
	defer func() { <-l.lock }()
	if l.conn != nil && (l.conn.IsClosed() || l.endpoint != home.Primary || l.conn.Ping(ctx) != nil) {
		l.close(ctx)
	}
	if l.conn == nil {
		conn, err := s.cfg.Dial(ctx, *home, m.Database)
		if err != nil {
			return err
		}
		l.conn, l.endpoint = conn, home.Primary
		if _, err := conn.Exec(ctx, prepareLine, lockTimeout.String()); err != nil {
			l.close(ctx)
			return shardError(home.ID, err)
		}
	}
	l.used = time.Now()
	err := f(l.conn)
	if err != nil && l.conn.IsClosed() {
		l.close(ctx)
	}
	return shardError(home.ID, err)
}

// prepareLine: the commit of a draw must be on disk before a value is used on another shard.
const prepareLine = `SELECT pg_catalog.set_config('search_path', '', false), pg_catalog.set_config('lock_timeout', $1, false),
 CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local') THEN pg_catalog.set_config('synchronous_commit', 'on', false) END`

// close closes the connection.
func (l *line) close(ctx context.Context) {
	if l.conn == nil {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = l.conn.Close(bounded)
	l.conn = nil
}

// Run closes connections that are not used, until ctx ends, then all.
func (s *Source) Run(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.IdleTimeout / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.closeIdle(ctx, 0)
			return
		case <-ticker.C:
			s.closeIdle(ctx, s.cfg.IdleTimeout)
		}
	}
}

// closeIdle closes the connections that were not used for so long.
func (s *Source) closeIdle(ctx context.Context, unused time.Duration) {
	s.mu.Lock()
	lines := make([]*line, 0, len(s.lines))
	for database, l := range s.lines {
		lines = append(lines, l)
		if l.conn == nil && unused > 0 && len(l.lock) == 0 {
			delete(s.lines, database)
		}
	}
	s.mu.Unlock()
	for _, l := range lines {
		if unused > 0 {
			select {
			case l.lock <- struct{}{}:
			default:
				continue
			}
		} else {
			l.lock <- struct{}{}
		}
		if time.Since(l.used) >= unused {
			l.close(ctx)
		}
		<-l.lock
	}
}

// draw draws at least least and at most most values in a transaction of its own. They are on disk when draw returns, with all that was
// drawn before: the transaction has an id, so its commit is flushed, also where Postgres logged a few values ahead in an earlier one.
func draw(ctx context.Context, conn *pgx.Conn, sequence directory.TableName, least, most int) ([]int64, error) {
	rows, err := conn.Query(ctx, drawQuery, sequence.String(), least, most)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// drawQuery draws no more than needed where more would come to the end of the sequence: a draw that fails there has used values up.
const drawQuery = `SELECT pg_catalog.nextval(s.seqrelid) FROM pg_catalog.pg_sequence s, pg_catalog.generate_series(1, GREATEST($2::int8,
 CASE WHEN s.seqcycle THEN $3::int8 ELSE LEAST($3::int8, COALESCE(pg_catalog.trunc((CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END::numeric
 - pg_catalog.pg_sequence_last_value(s.seqrelid)) / s.seqincrement), 0)) END)::int8)
 WHERE s.seqrelid = $1::text::pg_catalog.regclass AND pg_catalog.pg_current_xact_id() IS NOT NULL`

// mayDraw fails as nextval does where the role has no privilege on the sequence.
func mayDraw(ctx context.Context, conn *pgx.Conn, r Request) error {
	var may bool
	err := conn.QueryRow(ctx, `SELECT pg_catalog.has_sequence_privilege($1::name, $2::text::pg_catalog.regclass, 'USAGE, UPDATE')`,
		r.Role, r.Sequence.String()).Scan(&may)
	if err == nil && !may {
		return pgerr.Newf("42501", "permission denied for sequence %s", r.Sequence.Name)
	}
	return err
}

// shardError is what the client sees: the shard's own error, or that the shard was lost.
func shardError(shard directory.ShardID, err error) error {
	var refused *pgconn.PgError
	var own *pgerr.Error
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.As(err, &refused):
		return pgerr.Of(err)
	}
	return pgerr.Newf(pgerr.ConnectionFailure, "the connection to shard %s was lost while a sequence was drawn from", shard).Because(err)
}

// take takes the place in a lock.
func take(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
