package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

func TestCreateAndLoad(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	_, err := store.Load(ctx)
	wantError(t, err, ErrNotFound)
	wantError(t, store.CreateMap(ctx, emptyMap(t, "app")), ErrNotFound)
	createCluster(t, store, "app", `odd/"name %2F`)
	if err := store.CreateCluster(ctx, testCluster()); !errors.Is(err, ErrExists) || errors.Is(err, ErrUnavailable) {
		t.Errorf("creating it again gives %v", err)
	}
	wantError(t, store.CreateMap(ctx, emptyMap(t, "app")), ErrExists)
	must(t, store.UpdateCluster(ctx, func(c Cluster) (Cluster, error) {
		c.Home = "s2"
		return c, nil
	}))

	snapshot, err := openStore(t).Load(ctx)
	must(t, err)
	if snapshot.Cluster.Home != "s2" || !slices.Equal(snapshot.Cluster.Databases, []string{"app", `odd/"name %2F`}) {
		t.Errorf("cluster is %+v", snapshot.Cluster)
	}
	for _, database := range snapshot.Cluster.Databases {
		if m := snapshot.Maps[database]; m == nil || m.Database != database || m.Epoch != 1 {
			t.Errorf("map of %s is %+v", database, m)
		}
	}
	_, err = store.Apply(ctx, "missing", addTable("a"))
	wantError(t, err, ErrNotFound)
}

func TestDroppedDatabaseKeepsItsEpoch(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	for i := range 4 {
		_, err := store.Apply(ctx, "app", addTable(fmt.Sprint("t", i)))
		must(t, err)
	}
	must(t, store.DeleteMap(ctx, "app"))
	snapshot, err := store.Load(ctx)
	must(t, err)
	if len(snapshot.Maps) != 0 || len(snapshot.Cluster.Databases) != 0 {
		t.Fatalf("after the drop: %+v", snapshot)
	}
	if left := keysUnder(t, store, "blobs/"); len(left) != 0 {
		t.Errorf("pieces are left: %v", left)
	}
	must(t, store.CreateMap(ctx, emptyMap(t, "app")))
	m, err := store.LoadMap(ctx, "app")
	must(t, err)
	if m.Epoch != 6 || len(m.Tables) != 0 {
		t.Errorf("the new database begins at epoch %d with tables %v, want 6 and none", m.Epoch, tableNames(m))
	}
}

// TestConcurrentApply: many stores change one map at once; every change is in the result, every epoch was
// given to exactly one.
func TestConcurrentApply(t *testing.T) {
	const writers, each = 6, 10
	ctx := t.Context()
	createCluster(t, openStore(t), "app")
	var mu sync.Mutex
	epochs := map[directory.Epoch]string{}
	var group sync.WaitGroup
	for w := range writers {
		store := openStore(t)
		group.Go(func() {
			for i := range each {
				name := fmt.Sprintf("t%d_%d", w, i)
				m, err := store.Apply(ctx, "app", addTable(name))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := epochs[m.Epoch]; taken {
					t.Errorf("epoch %d was given to %s and %s", m.Epoch, other, name)
				}
				epochs[m.Epoch] = name
				mu.Unlock()
				if _, ok := m.Table(directory.TableName{Schema: "public", Name: name}); !ok {
					t.Errorf("the map returned for %s is without it", name)
				}
			}
		})
	}
	group.Wait()
	m, err := openStore(t).LoadMap(ctx, "app")
	must(t, err)
	if len(m.Tables) != writers*each || m.Epoch != 1+writers*each {
		t.Errorf("%d tables at epoch %d, want %d at %d", len(m.Tables), m.Epoch, writers*each, 1+writers*each)
	}
}

func TestSwapComparesTheEpoch(t *testing.T) {
	store, other := openStore(t), openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	current, err := store.LoadMap(ctx, "app")
	must(t, err)
	next, err := addTable("mine").Apply(current)
	must(t, err)
	_, err = other.Apply(ctx, "app", addTable("theirs"))
	must(t, err)
	if err := store.Swap(ctx, current, next); !errors.Is(err, ErrConflict) || errors.Is(err, ErrUnavailable) {
		t.Errorf("swapping an older map gives %v", err)
	}
	m, err := store.AdvanceEpoch(ctx, "app", 40)
	must(t, err)
	if m.Epoch != 40 || !slices.Equal(tableNames(m), []string{"theirs"}) {
		t.Errorf("advanced to epoch %d with tables %v", m.Epoch, tableNames(m))
	}
	if m, err = other.AdvanceEpoch(ctx, "app", 7); err != nil || m.Epoch != 40 {
		t.Errorf("advancing to the past gives %v, %v", m, err)
	}
	refusal := errors.New("no such thing")
	_, err = store.Apply(ctx, "app", failing{refusal})
	wantError(t, err, refusal)
}

type failing struct{ err error }

func (f failing) Apply(*directory.Map) (*directory.Map, error) { return nil, f.err }

// TestTransactionThatCountedUnanswered: the flip went through but its answer was lost; asking again finds it.
func TestTransactionThatCountedUnanswered(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	stored, err := store.loadStored(ctx, "app")
	must(t, err)
	token := stored.manifest.Tokens[0]
	ended, cancel := context.WithCancel(ctx)
	cancel()
	request := writeRequest{next: stored.value, revision: stored.revision}
	must(t, store.flip(ended, request, nil, nil, token))
	wantError(t, store.flip(ended, request, nil, nil, "another"), ErrOutcomeUnknown)
	request.revision--
	wantError(t, store.flip(ended, request, nil, nil, "another"), ErrConflict)
}

// bigMap has one hash group of n partitions.
func bigMap(t testing.TB, n uint64) *directory.Map {
	t.Helper()
	step := ^uint64(0)/n + 1
	partitions := make([]directory.Partition, n)
	for i := range partitions {
		from := uint64(i) * step
		to := from + step - 1
		if uint64(i) == n-1 {
			to = ^uint64(0)
		}
		partitions[i] = directory.Partition{Name: fmt.Sprint("p", i), Shard: testShards[i%2].ID, HashFrom: from, HashTo: to}
	}
	int8s := []directory.KeyType{directory.Int8}
	m, err := directory.NewMap(directory.Map{
		ClusterID: "c1", Database: "big", Epoch: 1, Shards: testShards, Home: "s1",
		Groups: []directory.Group{{ID: "g1", Method: directory.MethodHash, Key: int8s, Partitions: partitions}},
		Tables: []directory.Table{{
			Name: directory.TableName{Schema: "public", Name: "big"}, Kind: directory.TableSharded,
			Group: "g1", Key: []string{"id"}, KeyTypes: int8s,
		}},
	})
	must(t, err)
	return m
}

// place puts one partition on s1.
type place int

func (i place) Apply(m *directory.Map) (*directory.Map, error) {
	next := *m
	next.Epoch++
	next.Groups = slices.Clone(m.Groups)
	next.Groups[0].Partitions = slices.Clone(m.Groups[0].Partitions)
	next.Groups[0].Partitions[i].Shard = "s1"
	return directory.NewMap(next)
}

func TestBigMap(t *testing.T) {
	const partitions = 100_000
	store := openStore(t, func(c *Config) { c.RequestTimeout = 20 * time.Second })
	ctx := t.Context()
	createCluster(t, store)
	must(t, store.CreateMap(ctx, bigMap(t, partitions)))
	whole := keysUnder(t, store, "blobs/")
	t.Logf("%d pieces, the largest of %d bytes", len(whole), slices.Max(sizesUnder(t, store, "blobs/")))
	if len(whole) < 3 || slices.Max(sizesUnder(t, store, "blobs/")) > pieceStored {
		t.Errorf("stored as %d pieces, the largest of %d bytes", len(whole), slices.Max(sizesUnder(t, store, "blobs/")))
	}
	_, err := store.Apply(ctx, "big", place(77_777))
	must(t, err)
	// Only what changed is written: the piece with the epoch, that with the partition, or a neighbour.
	if added := len(keysUnder(t, store, "blobs/")) - len(whole); added < 1 || added > 4 {
		t.Errorf("changing one partition wrote %d of %d pieces", added, len(whole))
	}
	m, err := openStore(t).LoadMap(ctx, "big")
	must(t, err)
	if n := len(m.Groups[0].Partitions); n != partitions || m.Epoch != 2 || m.Groups[0].Partitions[77_777].Shard != "s1" {
		t.Errorf("loaded %d partitions at epoch %d, the changed one on %s", n, m.Epoch, m.Groups[0].Partitions[77_777].Shard)
	}
}

// TestReplacedPiecesVanish: what no manifest names any more goes after the grace time, what one names stays.
func TestReplacedPiecesVanish(t *testing.T) {
	t.Parallel() // it mostly waits
	store := openStore(t, func(c *Config) { c.BlobGrace = time.Second })
	ctx := t.Context()
	createCluster(t, store, "app")
	for i := range 5 {
		_, err := store.Apply(ctx, "app", addTable(fmt.Sprint("t", i)))
		must(t, err)
	}
	orphan := store.blobKey("app", "orphan")
	lease, err := store.leaseForPieces(ctx)
	must(t, err)
	must(t, store.writePiece(ctx, orphan, []byte("x"), lease))
	if n := len(keysUnder(t, store, "blobs/")); n < 3 {
		t.Fatalf("%d pieces right after the changes: the old ones went at once", n)
	}
	until(t, "only the current piece is left", func() bool { return len(keysUnder(t, store, "blobs/")) == 1 })
	m, err := openStore(t).LoadMap(ctx, "app")
	must(t, err)
	if m.Epoch != 6 {
		t.Errorf("epoch %d after the replaced pieces went, want 6", m.Epoch)
	}
	// The lease that the store remembers is gone as well by now or soon: the next change must not care.
	_, err = store.client.Revoke(ctx, lease)
	if err != nil && !vanished(err) {
		t.Fatal(err)
	}
	store.mu.Lock()
	store.grace = graceLease{id: lease, until: time.Now().Add(time.Hour)}
	store.mu.Unlock()
	_, err = store.Apply(ctx, "app", addTable("last"))
	must(t, err)
}

// TestPieceIsNeverLeasedUnderAManifest: a writer that lost the race leaves the winner's piece alone.
func TestPieceIsNeverLeasedUnderAManifest(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	stored, err := store.loadStored(ctx, "app")
	must(t, err)
	lease, err := store.leaseForPieces(ctx)
	must(t, err)
	key := store.blobKey("app", stored.manifest.Pieces[0])
	must(t, store.writePiece(ctx, key, []byte("other"), lease))
	kv, err := store.getOne(ctx, "look", key)
	must(t, err)
	if kv.Lease != 0 || string(kv.Value) == "other" {
		t.Errorf("the manifest's piece got lease %x, value %q", kv.Lease, kv.Value)
	}
}

func TestCorruptPieceIsRefused(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	stored, err := store.loadStored(ctx, "app")
	must(t, err)
	other, err := compress([]byte(`{"format":1}`))
	must(t, err)
	_, err = store.client.Put(ctx, store.blobKey("app", stored.manifest.Pieces[0]), string(other))
	must(t, err)
	_, err = openStore(t).Load(ctx)
	wantError(t, err, ErrCorrupt)
}

// TestCut: pieces are the whole text in order, within their bounds, and an insertion changes few of them.
func TestCut(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	text := make([]byte, 20<<20)
	for i := range text {
		text[i] = "0123456789abcdef"[random.IntN(16)]
	}
	at := random.IntN(len(text))
	longer := slices.Concat(text[:at], []byte("inserted"), text[at:])
	sums := map[string]bool{}
	for n, whole := range [][]byte{text, longer} {
		var joined []byte
		fresh := 0
		pieces := cut(whole)
		for i, p := range pieces {
			joined = append(joined, p.raw...)
			if len(p.raw) > pieceMax || len(p.raw) < pieceMin && i < len(pieces)-1 {
				t.Errorf("piece %d has %d bytes", i, len(p.raw))
			}
			if !sums[p.sum] {
				fresh++
			}
			sums[p.sum] = true
		}
		if string(joined) != string(whole) {
			t.Error("the pieces do not make up the whole")
		}
		if n == 1 && fresh > 4 {
			t.Errorf("an insertion changed %d of %d pieces", fresh, len(pieces))
		}
	}
	if len(cut(nil)) != 0 {
		t.Error("nothing is cut into something")
	}
}

// TestIncompressiblePieces: what does not compress is halved until it fits a request.
func TestIncompressiblePieces(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 3<<20)
	_, err := random.Read(noise)
	must(t, err)
	lease, err := store.leaseForPieces(ctx)
	must(t, err)
	all, added, err := store.writePieces(ctx, "app", cut(noise), nil, lease)
	must(t, err)
	if len(all) != len(added) || slices.Max(sizesUnder(t, store, "blobs/")) > pieceStored {
		t.Errorf("%d pieces, the largest of %d bytes", len(all), slices.Max(sizesUnder(t, store, "blobs/")))
	}
	back, err := store.readPieces(ctx, "app", manifest{Pieces: all, Sum: sumOf(noise)})
	must(t, err)
	if string(back) != string(noise) {
		t.Error("read back something else")
	}
}

func TestUnavailable(t *testing.T) {
	store := openStore(t, func(c *Config) {
		c.Endpoints = []string{"127.0.0.1:1"}
		c.RequestTimeout = 300 * time.Millisecond
	})
	began := time.Now()
	_, err := store.Apply(t.Context(), "app", addTable("a"))
	wantError(t, err, ErrUnavailable)
	if errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("nothing was sent, yet: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("refused only after %s", took)
	}
	var state interface{ SQLState() string }
	if !errors.As(err, &state) || state.SQLState() != "57P03" {
		t.Errorf("SQLSTATE of %v", err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the client went away")
	cancel(reason)
	_, err = store.Load(ended)
	wantError(t, err, reason)
	if errors.Is(err, ErrUnavailable) {
		t.Errorf("the end of the context is no outage: %v", err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	for _, config := range []Config{
		{}, {Endpoints: []string{"x"}, LeaseTTL: 1500 * time.Millisecond}, {Endpoints: []string{"x"}, LeaseTTL: -1},
		{Endpoints: []string{"x"}, RequestTimeout: -1}, {Endpoints: []string{"x"}, BlobGrace: time.Millisecond},
	} {
		if store, err := Open(t.Context(), config); err == nil {
			t.Errorf("%+v is accepted", config)
			must(t, store.Close())
		}
	}
	config := Config{Endpoints: []string{"x"}, Prefix: "/p"}
	must(t, config.validate())
	if config.Prefix != "/p/" || config.LeaseTTL != 10*time.Second {
		t.Errorf("defaults are %+v", config)
	}
}

func keysUnder(t testing.TB, store *Store, part string) []string {
	t.Helper()
	response, err := store.get(t.Context(), "list", store.root+part, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, err)
	var keys []string
	for _, kv := range response.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), store.root))
	}
	return keys
}

func sizesUnder(t testing.TB, store *Store, part string) []int {
	t.Helper()
	response, err := store.get(t.Context(), "list", store.root+part, clientv3.WithPrefix())
	must(t, err)
	var sizes []int
	for _, kv := range response.Kvs {
		sizes = append(sizes, len(kv.Value))
	}
	return sizes
}
