package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

// Cluster is a running development cluster. Shards are counted from 0; shard 0 is called s1. Its methods are safe
// for concurrent use, except that Close must not run at the same time as another method.
type Cluster struct {
	dir       string
	temporary bool // the directory is ours to remove
	cfg       Config
	log       *slog.Logger
	who       account
	binaries  Binaries
	lock      *os.File
	guard     *supervisor
	layout    *layout
	shards    []*shardServers

	etcdMu sync.Mutex
	etcd   *etcd.Embedded // nil if not asked for or stopped

	closing  sync.Once
	closeErr error
}

// shardServers are the servers of one shard.
type shardServers struct {
	name     string
	primary  *server
	replicas []*server
}

func (s *shardServers) all() []*server { return append([]*server{s.primary}, s.replicas...) }

// Start brings up a cluster: a new one, or the one that Dir holds. It returns when every server accepts connections.
// ctx bounds the start only; the cluster runs until Close or the end of this process.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	binaries, err := FindBinaries(ctx, *cfg.Search, cfg.Log)
	if err != nil {
		return nil, err
	}
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, log: cfg.Log, who: who, binaries: binaries}
	if err := c.bringUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start cluster: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) bringUp(ctx context.Context) error {
	if err := c.openDir(ctx); err != nil {
		return err
	}
	fresh, err := c.settleLayout()
	if err != nil {
		return fmt.Errorf("use data directory %s: %w", c.dir, err)
	}
	scratch := ""
	if c.temporary {
		scratch = c.dir
	}
	if c.guard, err = startSupervisor(c.lock, scratch); err != nil {
		return err
	}
	c.makeServers()
	if err := c.startAll(ctx, fresh); err != nil {
		return err
	}
	for i, shard := range c.shards {
		c.layout.Shards[i].Primary = shard.primary.listeningPort()
		for j, replica := range shard.replicas {
			c.layout.Shards[i].Replicas[j] = replica.listeningPort()
		}
	}
	c.layout.Ready = true
	return c.layout.write(c.dir)
}

// openDir makes or enters the data directory and locks it.
func (c *Cluster) openDir(ctx context.Context) (err error) {
	if c.cfg.Dir == "" {
		c.temporary = true
		if c.dir, err = os.MkdirTemp("", "shardyard-"); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
		if err := c.who.own(c.dir); err != nil {
			return err
		}
	} else {
		if c.dir, err = filepath.Abs(c.cfg.Dir); err != nil {
			return fmt.Errorf("find data directory: %w", err)
		}
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := c.who.canEnter(ctx, c.dir); err != nil {
		return err
	}
	c.lock, err = lockDir(ctx, c.dir)
	return err
}

// settleLayout reads what the directory holds, or plans a new cluster and clears what an interrupted start left.
func (c *Cluster) settleLayout() (fresh bool, err error) {
	found, err := readLayout(c.dir)
	if err != nil {
		return false, err
	}
	if found != nil && found.Ready {
		c.layout = found
		return false, found.fits(c.cfg, c.binaries)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return false, err
	}
	if found == nil && len(entries) > 1 { // one is the lock
		return false, errors.New("it is not empty and holds no cluster of ours")
	}
	if found != nil {
		half := []string{"etcd"}
		for i := range found.Shards {
			half = append(half, shardName(i))
		}
		for _, name := range half {
			if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
				return false, fmt.Errorf("clear an interrupted start: %w", err)
			}
		}
	}
	shards, replicas := c.cfg.Shards, c.cfg.Replicas
	if shards == 0 {
		shards = 3
	}
	if c.layout, err = newLayout(shards, replicas, c.binaries.Major); err != nil {
		return false, err
	}
	return true, c.layout.write(c.dir)
}

func shardName(i int) string { return fmt.Sprintf("s%d", i+1) }

func (c *Cluster) makeServers() {
	for i, ports := range c.layout.Shards {
		name := shardName(i)
		shard := &shardServers{name: name}
		shard.primary = c.makeServer(name, filepath.Join(c.dir, name, "primary"), ports.Primary, func(s *server) []setting {
			return override(commonSettings(s), c.cfg.Settings)
		})
		for j, port := range ports.Replicas {
			folder := fmt.Sprintf("replica%d", j+1)
			slot := replicaSlot(j)
			replica := c.makeServer(name+"_"+folder, filepath.Join(c.dir, name, folder), port, func(s *server) []setting {
				following := append(commonSettings(s),
					setting{"primary_conninfo", shard.primary.connInfo(s.name)}, setting{"primary_slot_name", slot})
				return override(following, c.cfg.Settings)
			})
			shard.replicas = append(shard.replicas, replica)
		}
		c.shards = append(c.shards, shard)
	}
}

func replicaSlot(j int) string { return fmt.Sprintf("replica%d", j+1) }

func (c *Cluster) makeServer(name, dir string, port uint16, settings func(*server) []setting) *server {
	return &server{
		name: name, dir: dir, logFile: dir + ".log", port: port, settings: settings,
		who: c.who, binaries: c.binaries, guard: c.guard, log: c.log, timeout: c.cfg.StartTimeout,
	}
}

// startAll starts the shards at the same time, and etcd beside them. The first failure cancels the rest.
func (c *Cluster) startAll(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	problems := make([]error, len(c.shards)+1)
	run := func(slot int, work func() error) {
		group.Go(func() {
			if problems[slot] = work(); problems[slot] != nil {
				cancel(problems[slot])
			}
		})
	}
	for i, shard := range c.shards {
		run(i, func() error { return c.startShard(ctx, i, shard, fresh) })
	}
	if c.cfg.Etcd {
		run(len(c.shards), func() error { return c.startEtcd(ctx, true) })
	}
	group.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause // the others only failed because this one did
	}
	return errors.Join(problems...)
}

func (c *Cluster) startShard(ctx context.Context, index int, shard *shardServers, fresh bool) error {
	durable := !c.temporary
	if fresh {
		if err := shard.primary.initdb(ctx, c.cfg, durable); err != nil {
			return err
		}
		if err := shard.primary.includeSettings(); err != nil {
			return err
		}
	}
	if err := shard.primary.start(ctx, true); err != nil {
		return err
	}
	if err := c.prepareShard(ctx, index, shard.primary, fresh); err != nil {
		return fmt.Errorf("prepare shard %s: %w", shard.name, err)
	}
	for j, replica := range shard.replicas {
		if fresh {
			if err := replica.makeReplica(ctx, shard.primary, replicaSlot(j), durable); err != nil {
				return err
			}
		}
		if err := replica.start(ctx, true); err != nil {
			return err
		}
	}
	return nil
}

// Dir returns the data directory.
func (c *Cluster) Dir() string { return c.dir }

// Binaries returns the server binaries in use.
func (c *Cluster) Binaries() Binaries { return c.binaries }

// Shards describes the shards as the map wants them.
func (c *Cluster) Shards() []directory.Shard {
	described := make([]directory.Shard, 0, len(c.shards))
	for _, shard := range c.shards {
		entry := directory.Shard{ID: directory.ShardID(shard.name), Primary: shard.primary.endpoint(), State: directory.ShardActive}
		for _, replica := range shard.replicas {
			entry.Replicas = append(entry.Replicas, replica.endpoint())
		}
		described = append(described, entry)
	}
	return described
}

// ConnString returns the URL of a database on a shard's primary, as the superuser.
func (c *Cluster) ConnString(shard int, database string) string {
	return c.shards[shard].primary.connString(database)
}

// ReplicaConnString returns the URL of a database on a replica, as the superuser.
func (c *Cluster) ReplicaConnString(shard, replica int, database string) string {
	return c.shards[shard].replicas[replica].connString(database)
}

// KillShard ends a primary and all its backends with SIGKILL, as a power failure would.
func (c *Cluster) KillShard(shard int) error { return c.shards[shard].primary.kill() }

// RestartShard starts a primary that does not run, or stops one gently and starts it again. It keeps its port.
func (c *Cluster) RestartShard(ctx context.Context, shard int) error {
	primary := c.shards[shard].primary
	if err := primary.stop(true); err != nil {
		return err
	}
	return primary.start(ctx, false)
}

// StartShard starts a primary that does not run, on its port.
func (c *Cluster) StartShard(ctx context.Context, shard int) error {
	return c.shards[shard].primary.start(ctx, false)
}

// StopShard stops a primary: gently, with a checkpoint, its backends ending with 57P01, and no server listening then.
func (c *Cluster) StopShard(shard int) error { return c.shards[shard].primary.stop(true) }

// PauseShard stops every process of a primary with SIGSTOP: connections stay open, new ones are accepted by the
// kernel, and nobody answers.
func (c *Cluster) PauseShard(shard int) error { return c.shards[shard].primary.pause() }

// ResumeShard continues a paused primary.
func (c *Cluster) ResumeShard(shard int) error { return c.shards[shard].primary.resume() }

// Close stops every server and waits for its end. A directory that the caller named stays and can be started again;
// a temporary one is removed. Calling it again returns the first call's answer.
func (c *Cluster) Close() error {
	c.closing.Do(func() { c.closeErr = c.close() })
	return c.closeErr
}

func (c *Cluster) close() error {
	var group sync.WaitGroup
	var servers []*server
	for _, shard := range c.shards {
		servers = append(servers, shard.all()...)
	}
	problems := make([]error, len(servers))
	for i, s := range servers {
		// What is removed right after need not be checkpointed.
		group.Go(func() { problems[i] = s.stop(!c.temporary) })
	}
	group.Go(c.StopEtcd)
	group.Wait()
	if err := errors.Join(problems...); err != nil && c.guard != nil {
		// The supervisor has to end what we could not; it does so when its pipe closes.
		return fmt.Errorf("close cluster: %w", errors.Join(err, c.guard.abandon(), c.lock.Close()))
	}
	var err error
	if c.guard != nil {
		err = errors.Join(err, c.guard.close())
	}
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
	}
	if c.temporary && c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	if err != nil {
		return fmt.Errorf("close cluster: %w", err)
	}
	return nil
}
