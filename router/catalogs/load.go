package catalogs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// Shards reaches the shards as the service role.
type Shards interface {
	// Service returns a connection to a database on a shard's primary.
	Service(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	// KeepService takes it back; its session is as it was at first.
	KeepService(ctx context.Context, conn *pgx.Conn)
}

// Load reads the catalog of the map's database. The home shard must answer; another shard that does not
// is listed in the snapshot's Unread, and every user type is unknown there.
//
// The snapshot's version is the map's: load the map first, so that a change in between makes the
// snapshot look older than it is, never newer.
func (l *Loader) Load(ctx context.Context, m *directory.Map, shards Shards) (*catalog.Snapshot, error) {
	home, ok := m.Shard(m.Home)
	if !ok {
		return nil, fmt.Errorf("load catalog of %s: home shard %s is not in the map", m.Database, m.Home)
	}
	others := readShards(ctx, m, shards, nil)
	conn, err := shards.Service(ctx, *home, m.Database)
	if err != nil {
		others.wait()
		return nil, fmt.Errorf("connect to home shard %s: %w", m.Home, err)
	}
	defer shards.KeepService(ctx, conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		others.wait()
		return nil, fmt.Errorf("begin on home shard %s: %w", m.Home, err)
	}
	var data *catalog.Data
	var objects []catalog.Object
	err = aside(ctx, conn, func() (err error) {
		if data, err = l.read(ctx, conn); err == nil {
			objects, err = readObjects(ctx, conn)
		}
		return err
	})
	others.wait()
	if err != nil {
		return nil, fmt.Errorf("read catalog of %s on home shard %s: %w", m.Database, m.Home, err)
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("end reading catalog on home shard %s: %w", m.Home, err)
	}
	return others.complete(m, data, objects), nil
}

// LoadWithin is Load as an open transaction sees it: the home shard and those of lent are read on the transaction's
// own connections, the other shards on service connections.
func (l *Loader) LoadWithin(
	ctx context.Context, m *directory.Map, shards Shards, lent []directory.ShardID,
	lend func(ctx context.Context, shard directory.ShardID, use func(*pgx.Conn) error) error,
) (*catalog.Snapshot, error) {
	others := readShards(ctx, m, shards, lent)
	defer others.wait()
	var data *catalog.Data
	var objects []catalog.Object
	err := lend(ctx, m.Home, func(conn *pgx.Conn) (err error) {
		return aside(ctx, conn, func() error {
			if data, err = l.read(ctx, conn); err == nil {
				objects, err = readObjects(ctx, conn)
			}
			return err
		})
	})
	for _, shard := range lent {
		if err == nil && shard != m.Home {
			err = lend(ctx, shard, func(conn *pgx.Conn) error {
				var answer shardAnswer
				err := aside(ctx, conn, func() (err error) {
					answer, err = readShard(ctx, conn)
					return err
				})
				others.add(shard, answer, err)
				return err
			})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read catalog of %s: %w", m.Database, err)
	}
	others.wait()
	return others.complete(m, data, objects), nil
}

// asideAttempts bounds how often a catalog is read again that changed while it was read.
const asideAttempts = 5

// asideWait bounds a wait for a lock while a catalog is read: who waits longer may be in a deadlock, of which somebody else, after a
// second, would be the victim.
const asideWait = "300ms"

// ownPlans keeps what a client has set for its own queries from the plans of ours.
const ownPlans = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = on; " +
	"SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = on; SET LOCAL enable_sort = on"

// aside reads within a transaction, behind a savepoint that is undone: the locks that printing a definition takes on its
// tables must not stay with a client's transaction, where they would be in the way of others. Reading is repeated while somebody
// has locked a definition, and if something that another session drops at this moment has made it fail.
func aside(ctx context.Context, conn *pgx.Conn, read func() error) error {
	if conn.PgConn().TxStatus() != 'T' {
		return read() // a pipeline, which has no savepoints
	}
	const name = "shardyard_aside"
	for attempt := 1; ; attempt++ {
		if _, err := conn.Exec(ctx, "SAVEPOINT "+name+"; SET LOCAL lock_timeout = '"+asideWait+"'; "+ownPlans, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		failed := read()
		if conn.IsClosed() {
			return failed
		}
		_, err := conn.Exec(ctx, "ROLLBACK TO SAVEPOINT "+name+"; RELEASE SAVEPOINT "+name, pgx.QueryExecModeSimpleProtocol)
		var refused *pgconn.PgError
		switch {
		case failed == nil || err != nil || !errors.As(failed, &refused) || refused.Code == "57014":
			return errors.Join(failed, err)
		case refused.Code == "55P03": // as long as it takes: that is what waiting for the lock would do
			attempt--
		case attempt == asideAttempts:
			return failed
		}
	}
}

// complete builds the snapshot from what the home shard and the others have answered.
func (s *shardAnswers) complete(m *directory.Map, data *catalog.Data, objects []catalog.Object) *catalog.Snapshot {
	data.Version, data.Home, data.Database = m.CatalogVersion, m.Home, m.Database
	data.ShardTypes, data.Unread = s.types, s.unread
	data.HomeOnly = s.lacking(m, objects)
	data.Relations = append(data.Relations, s.missing(data.Relations)...)
	return catalog.New(*data)
}

// LoadOn reads the catalog as conn sees it, its open transaction's changes included; there are no OID
// maps of other shards in it. Settings of the session are left as they were.
func (l *Loader) LoadOn(ctx context.Context, conn *pgx.Conn) (*catalog.Snapshot, error) {
	var data *catalog.Data
	err := aside(ctx, conn, func() (err error) {
		data, err = l.read(ctx, conn)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return catalog.New(*data), nil
}

// shardAnswers gathers what the other shards answer.
type shardAnswers struct {
	mu      sync.Mutex
	group   sync.WaitGroup
	types   map[directory.ShardID][]catalog.ShardType
	objects map[directory.ShardID]map[catalog.Object]bool
	indexes []*catalog.Relation
	unread  []directory.ShardID
}

func (s *shardAnswers) wait() { s.group.Wait() }

// missing are the indexes that the home shard does not have: those of tables that live elsewhere. They have
// no OID.
func (s *shardAnswers) missing(known []*catalog.Relation) []*catalog.Relation {
	names := make(map[directory.TableName]bool, len(known))
	for _, r := range known {
		names[r.Name] = true
	}
	var missing []*catalog.Relation
	for _, index := range s.indexes {
		if !names[index.Name] {
			names[index.Name], index.OID = true, 0
			missing = append(missing, index)
		}
	}
	return missing
}

// readShards asks all shards but the home shard and those of but.
func readShards(ctx context.Context, m *directory.Map, shards Shards, but []directory.ShardID) *shardAnswers {
	all := &shardAnswers{
		types:   make(map[directory.ShardID][]catalog.ShardType),
		objects: make(map[directory.ShardID]map[catalog.Object]bool),
	}
	for _, shard := range m.Shards {
		if shard.ID == m.Home || slices.Contains(but, shard.ID) {
			continue
		}
		all.group.Go(func() {
			answer, err := readOther(ctx, shard, m.Database, shards)
			all.add(shard.ID, answer, err)
		})
	}
	return all
}

// shardAnswer is what one shard answers.
type shardAnswer struct {
	types   []catalog.ShardType
	objects map[catalog.Object]bool
	indexes []*catalog.Relation
}

func (s *shardAnswers) add(shard directory.ShardID, answer shardAnswer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.unread = append(s.unread, shard)
	}
	s.types[shard], s.indexes = answer.types, append(s.indexes, answer.indexes...)
	s.objects[shard] = answer.objects
}

const shardTypesQuery = `
SELECT n.nspname::text, t.typname::text, t.oid
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid >= 12000 AND n.nspname !~ '^pg_(toast|temp)'`

func readOther(ctx context.Context, shard directory.Shard, database string, shards Shards) (shardAnswer, error) {
	conn, err := shards.Service(ctx, shard, database)
	if err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "3D000" {
			return shardAnswer{}, nil // the database is not there yet: no types
		}
		return shardAnswer{}, err
	}
	defer shards.KeepService(ctx, conn)
	return readShard(ctx, conn)
}

func readShard(ctx context.Context, conn *pgx.Conn) (shardAnswer, error) {
	r := newReader()
	var answer shardAnswer
	batch := &pgx.Batch{}
	queue(batch, shardTypesQuery, func(row pgx.CollectableRow) error {
		t, err := pgx.RowToStructByPos[catalog.ShardType](row)
		answer.types = append(answer.types, t)
		return err
	})
	queue(batch, indexesQuery, r.index)
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return shardAnswer{}, err
	}
	all, err := readObjects(ctx, conn)
	if err != nil {
		return shardAnswer{}, err
	}
	answer.objects = make(map[catalog.Object]bool, len(all))
	for _, o := range all {
		answer.objects[o] = true
	}
	answer.indexes = r.data.Relations
	return answer, nil
}
