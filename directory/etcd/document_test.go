package etcd

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// filled is a directory with two databases, one of them with tables.
func filled(t *testing.T) (*Store, *Snapshot) {
	t.Helper()
	store := openStore(t)
	createCluster(t, store, "app", "empty")
	for _, name := range []string{"a", "b"} {
		_, err := store.Apply(t.Context(), "app", addTable(name))
		must(t, err)
	}
	snapshot, err := store.Load(t.Context())
	must(t, err)
	return store, snapshot
}

// sameMaps compares all but the epochs.
func sameMaps(t *testing.T, got, want *Snapshot) {
	t.Helper()
	if !reflect.DeepEqual(got.Cluster, want.Cluster) {
		t.Errorf("cluster is %+v, want %+v", got.Cluster, want.Cluster)
	}
	if len(got.Maps) != len(want.Maps) {
		t.Fatalf("%d maps, want %d", len(got.Maps), len(want.Maps))
	}
	for database, m := range want.Maps {
		a, err := directory.Encode(withEpoch(got.Maps[database], 1))
		must(t, err)
		b, err := directory.Encode(withEpoch(m, 1))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("map of %s is %s, want %s", database, a, b)
		}
	}
}

func TestSnapshotFile(t *testing.T) {
	_, snapshot := filled(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	_, err := LoadFile(path)
	wantError(t, err, ErrNotFound)
	for range 2 { // the second replaces the first
		must(t, SaveFile(path, snapshot))
	}
	loaded, err := LoadFile(path)
	must(t, err)
	sameMaps(t, loaded, snapshot)
	if loaded.Revision != snapshot.Revision || loaded.Maps["app"].Epoch != 3 {
		t.Errorf("revision %d, epoch %d", loaded.Revision, loaded.Maps["app"].Epoch)
	}
	if _, ok := loaded.Maps["app"].Table(directory.TableName{Schema: "public", Name: "b"}); !ok {
		t.Error("the loaded map has no index")
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("left beside the file: %v", entries)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := SaveFile(filepath.Join(dir, "missing", "snapshot"), snapshot); err == nil {
		t.Error("saved into a directory that is not there")
	}
}

// TestSnapshotFileCorruption: every byte counts, and so does the end of the file.
func TestSnapshotFileCorruption(t *testing.T) {
	_, snapshot := filled(t)
	path := filepath.Join(t.TempDir(), "snapshot")
	must(t, SaveFile(path, snapshot))
	whole, err := os.ReadFile(path)
	must(t, err)
	for i := range whole {
		damaged := slices.Clone(whole)
		damaged[i] ^= 1
		must(t, os.WriteFile(path, damaged, 0o600))
		if _, err := LoadFile(path); err == nil {
			t.Fatalf("loaded although byte %d was damaged", i)
		}
		must(t, os.WriteFile(path, whole[:i], 0o600))
		_, err := LoadFile(path)
		wantError(t, err, ErrCorrupt)
	}
}

func export(t *testing.T, store *Store) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, store.Export(t.Context(), &out))
	return out.Bytes()
}

func TestExportImport(t *testing.T) {
	store, snapshot := filled(t)
	ctx := t.Context()
	exported := export(t, store)

	fresh := openStore(t, func(c *Config) { c.Cluster = "fresh/one" })
	must(t, fresh.Import(ctx, bytes.NewReader(exported), false))
	imported, err := fresh.Load(ctx)
	must(t, err)
	sameMaps(t, imported, snapshot)
	if imported.Maps["app"].Epoch <= snapshot.Maps["app"].Epoch {
		t.Errorf("epoch %d after %d", imported.Maps["app"].Epoch, snapshot.Maps["app"].Epoch)
	}
	wantError(t, fresh.Import(ctx, bytes.NewReader(exported), false), ErrExists)

	// What is replaced by force has gone on since: further tables, another database.
	f := follow(t, fresh)
	_, err = fresh.AdvanceEpoch(ctx, "app", 1<<30)
	must(t, err)
	_, err = fresh.Apply(ctx, "app", addTable("later"))
	must(t, err)
	must(t, fresh.CreateMap(ctx, emptyMap(t, "later")))
	must(t, fresh.Import(ctx, bytes.NewReader(exported), true))
	again, err := fresh.Load(ctx)
	must(t, err)
	sameMaps(t, again, snapshot)
	if epoch := again.Maps["app"].Epoch; epoch <= 1<<30+1 {
		t.Errorf("epoch fell to %d", epoch)
	}
	until(t, "watchers get what was imported", func() bool { return f.epoch("app") == again.Maps["app"].Epoch && f.epoch("later") == 0 })
	must(t, fresh.CreateMap(ctx, emptyMap(t, "later")))
	m, err := fresh.LoadMap(ctx, "later")
	must(t, err)
	if m.Epoch != 2 {
		t.Errorf("a database dropped by an import comes back at epoch %d, want 2", m.Epoch)
	}
	// The directory that was exported is not touched.
	same, err := store.Load(ctx)
	must(t, err)
	if same.Maps["app"].Epoch != 3 {
		t.Error("importing into another cluster changed this one")
	}
}

func TestImportRefusesWhatIsNotWhole(t *testing.T) {
	store, _ := filled(t)
	exported := export(t, store)
	target := openStore(t, func(c *Config) { c.Cluster = "target" })
	for _, damaged := range [][]byte{
		nil, exported[:len(exported)/2], []byte(`{}`),
		bytes.Replace(exported, []byte(`"version":1`), []byte(`"version":99`), 1),
		bytes.Replace(exported, []byte(`"databases":["app","empty"]`), []byte(`"databases":["app"]`), 1),
		bytes.Replace(exported, []byte(`"database":"app"`), []byte(`"database":"oops"`), 1),
	} {
		if bytes.Equal(damaged, exported) {
			t.Fatalf("the damage is none: %s", exported)
		}
		if err := target.Import(t.Context(), bytes.NewReader(damaged), false); err == nil {
			t.Errorf("imported %.80s", damaged)
		}
	}
	if left := keysUnder(t, target, ""); len(left) != 0 {
		t.Errorf("left behind by refused imports: %v", left)
	}
}
