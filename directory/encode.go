package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// formatVersion is the version of the map's JSON. It is raised when an older
// router would misread a map; such a router then refuses it.
const formatVersion = 1

// The JSON of a map. Values are text as [Value.Text] gives it, of the type that
// the group's key has; NULL is null; points of the hash space are sixteen
// hexadecimal digits, since JSON numbers are not exact up to 2^64.
type (
	mapJSON struct {
		Format         int         `json:"format"`
		Cluster        string      `json:"cluster"`
		Database       string      `json:"database"`
		Epoch          Epoch       `json:"epoch"`
		CatalogVersion uint64      `json:"catalog_version"`
		Home           ShardID     `json:"home"`
		Shards         []shardJSON `json:"shards"`
		Groups         []groupJSON `json:"groups,omitempty"`
		Tables         []tableJSON `json:"tables,omitempty"`
		Moves          []moveJSON  `json:"moves,omitempty"`
		Drop           *dropJSON   `json:"drop,omitempty"`
	}
	endpointJSON struct {
		Host string `json:"host"`
		Port uint16 `json:"port"`
	}
	shardJSON struct {
		ID       ShardID        `json:"id"`
		Primary  endpointJSON   `json:"primary"`
		Replicas []endpointJSON `json:"replicas,omitempty"`
		State    ShardState     `json:"state"`
	}
	groupJSON struct {
		ID         GroupID         `json:"id"`
		Method     Method          `json:"method"`
		Key        []string        `json:"key"`
		SubMethod  Method          `json:"sub_method,omitempty"`
		SubKey     []string        `json:"sub_key,omitempty"`
		Partitions []partitionJSON `json:"partitions"`
		Assign     Assign          `json:"assign,omitempty"`
		Entries    string          `json:"entries,omitempty"`
	}
	partitionJSON struct {
		Name     string      `json:"name"`
		Parent   string      `json:"parent,omitempty"`
		Shard    ShardID     `json:"shard"`
		From     []boundJSON `json:"from,omitempty"`
		To       []boundJSON `json:"to,omitempty"`
		Values   [][]*string `json:"values,omitempty"`
		Default  bool        `json:"default,omitempty"`
		HashFrom string      `json:"hash_from,omitempty"`
		HashTo   string      `json:"hash_to,omitempty"`
	}
	boundJSON struct {
		Min   bool    `json:"min,omitempty"`
		Value *string `json:"value,omitempty"`
		Max   bool    `json:"max,omitempty"`
	}
	nameJSON struct {
		Schema string `json:"schema"`
		Name   string `json:"name"`
	}
	columnJSON struct {
		Name   string `json:"name"`
		Type   string `json:"type,omitempty"` // a reference table's key has none
		Typmod *int32 `json:"typmod,omitempty"`
	}
	tableJSON struct {
		Schema      string       `json:"schema"`
		Name        string       `json:"name"`
		Kind        TableKind    `json:"kind"`
		Group       GroupID      `json:"group,omitempty"`
		Key         []columnJSON `json:"key,omitempty"`
		SubKey      []columnJSON `json:"sub_key,omitempty"`
		UniqueLocal []string     `json:"unique_local,omitempty"`
		Shard       ShardID      `json:"shard,omitempty"`
		Mirror      string       `json:"mirror,omitempty"`
		Hold        *holdJSON    `json:"hold,omitempty"`
	}
	holdJSON struct {
		ID      string    `json:"id"`
		Reason  string    `json:"reason,omitempty"`
		Owner   string    `json:"owner"`
		Decided bool      `json:"decided,omitempty"`
		Shards  []ShardID `json:"shards,omitempty"`
		GIDs    []string  `json:"gids,omitempty"`
		XIDs    []string  `json:"xids,omitempty"`
		Drop    bool      `json:"drop,omitempty"`
		Rename  *nameJSON `json:"rename,omitempty"`
	}
	dropJSON struct {
		ID      string `json:"id"`
		Owner   string `json:"owner"`
		Force   bool   `json:"force,omitempty"`
		Decided bool   `json:"decided,omitempty"`
	}
	moveJSON struct {
		ID        string    `json:"id"`
		Group     GroupID   `json:"group"`
		Partition string    `json:"partition"`
		From      ShardID   `json:"from"`
		To        ShardID   `json:"to"`
		Phase     MovePhase `json:"phase"`
	}
)

// Encode gives the map's JSON, always the same bytes for the same map.
func Encode(m *Map) ([]byte, error) {
	out := mapJSON{
		Format: formatVersion, Cluster: m.ClusterID, Database: m.Database, Epoch: m.Epoch,
		CatalogVersion: m.CatalogVersion, Home: m.Home, Drop: (*dropJSON)(m.Drop),
		Shards: make([]shardJSON, len(m.Shards)),
		Groups: make([]groupJSON, len(m.Groups)),
		Tables: make([]tableJSON, len(m.Tables)),
	}
	for i := range m.Shards {
		out.Shards[i] = encodeShard(&m.Shards[i])
	}
	for i := range m.Groups {
		out.Groups[i] = encodeGroup(&m.Groups[i])
	}
	for i := range m.Tables {
		out.Tables[i] = encodeTable(&m.Tables[i])
	}
	for _, move := range m.Moves {
		out.Moves = append(out.Moves, moveJSON(move))
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode map of database %q: %w", m.Database, err)
	}
	return data, nil
}

func encodeShard(s *Shard) shardJSON {
	out := shardJSON{ID: s.ID, Primary: endpointJSON(s.Primary), State: s.State}
	for _, e := range s.Replicas {
		out.Replicas = append(out.Replicas, endpointJSON(e))
	}
	return out
}

func encodeGroup(g *Group) groupJSON {
	out := groupJSON{
		ID: g.ID, Method: g.Method, Key: typeNames(g.Key), SubMethod: g.SubMethod, SubKey: typeNames(g.SubKey),
		Partitions: make([]partitionJSON, len(g.Partitions)), Assign: g.Assign, Entries: g.Entries,
	}
	hashed := g.Method == MethodHash || g.SubMethod == MethodHash
	for i := range g.Partitions {
		p := &g.Partitions[i]
		out.Partitions[i] = partitionJSON{
			Name: p.Name, Parent: p.Parent, Shard: p.Shard, From: encodeBounds(p.From), To: encodeBounds(p.To),
			Values: encodeTuples(p.Values), Default: p.Default,
		}
		if hashed {
			out.Partitions[i].HashFrom, out.Partitions[i].HashTo = hex64(p.HashFrom), hex64(p.HashTo)
		}
	}
	return out
}

func typeNames(types []KeyType) []string {
	var names []string
	for _, t := range types {
		names = append(names, t.String())
	}
	return names
}

func encodeBounds(bounds []Bound) []boundJSON {
	var out []boundJSON
	for _, b := range bounds {
		encoded := boundJSON{Min: b.Kind == MinValue, Max: b.Kind == MaxValue}
		if b.Kind == Finite {
			encoded.Value = new(b.Value.Text())
		}
		out = append(out, encoded)
	}
	return out
}

func encodeTuples(tuples [][]Value) [][]*string {
	var out [][]*string
	for _, tuple := range tuples {
		encoded := make([]*string, len(tuple))
		for i, v := range tuple {
			if !v.IsNull() {
				encoded[i] = new(v.Text())
			}
		}
		out = append(out, encoded)
	}
	return out
}

func encodeTable(t *Table) tableJSON {
	out := tableJSON{
		Schema: t.Name.Schema, Name: t.Name.Name, Kind: t.Kind, Group: t.Group,
		Key:    encodeColumns(t.Key, t.KeyTypes, t.KeyTypmods),
		SubKey: encodeColumns(t.SubKey, t.SubKeyTypes, t.SubKeyTypmods),
		Shard:  t.Shard, UniqueLocal: t.UniqueLocal, Mirror: t.Mirror,
	}
	if h := t.Hold; h != nil {
		out.Hold = &holdJSON{
			ID: h.ID, Reason: h.Reason, Owner: h.Owner, Decided: h.Decided, Shards: h.Shards, GIDs: h.GIDs, XIDs: h.XIDs, Drop: h.Drop,
			Rename: (*nameJSON)(h.Rename),
		}
	}
	return out
}

func encodeColumns(names []string, types []KeyType, typmods []int32) []columnJSON {
	var out []columnJSON
	for i, name := range names {
		column := columnJSON{Name: name}
		if types != nil {
			column.Type = types[i].String()
		}
		if typmods != nil {
			column.Typmod = &typmods[i]
		}
		out = append(out, column)
	}
	return out
}

// Decode reads what [Encode] wrote. Fields that it does not know are refused, and
// so is a map that [Check] refuses: a router that cannot understand a map must not
// route by it.
func Decode(data []byte) (*Map, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var in mapJSON
	if err := decodeOne(decoder, &in); err != nil {
		return nil, fmt.Errorf("decode map: %w", err)
	}
	m := Map{
		ClusterID: in.Cluster, Database: in.Database, Epoch: in.Epoch, CatalogVersion: in.CatalogVersion, Home: in.Home,
		Drop: (*Drop)(in.Drop),
	}
	for _, s := range in.Shards {
		shard := Shard{ID: s.ID, Primary: Endpoint(s.Primary), State: s.State}
		for _, e := range s.Replicas {
			shard.Replicas = append(shard.Replicas, Endpoint(e))
		}
		m.Shards = append(m.Shards, shard)
	}
	for i := range in.Groups {
		g, err := decodeGroup(&in.Groups[i])
		if err != nil {
			return nil, fmt.Errorf("decode map: group %q: %w", in.Groups[i].ID, err)
		}
		m.Groups = append(m.Groups, g)
	}
	for i := range in.Tables {
		t, err := decodeTable(&in.Tables[i])
		if err != nil {
			return nil, fmt.Errorf("decode map: table %s.%s: %w", in.Tables[i].Schema, in.Tables[i].Name, err)
		}
		m.Tables = append(m.Tables, t)
	}
	for _, move := range in.Moves {
		m.Moves = append(m.Moves, Move(move))
	}
	decoded, err := NewMap(m)
	if err != nil {
		return nil, fmt.Errorf("decode map: %w", err)
	}
	return decoded, nil
}

// decodeOne decodes the map of a version that this program knows, and nothing behind it.
func decodeOne(decoder *json.Decoder, in *mapJSON) error {
	err := decoder.Decode(in)
	if in.Format != formatVersion && in.Format != 0 {
		return fmt.Errorf("the format is version %d; this program knows version %d", in.Format, formatVersion)
	}
	if err != nil {
		return err
	}
	if in.Format == 0 {
		return errors.New("there is no format version")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the map")
	}
	return nil
}

func decodeTypes(names []string) ([]KeyType, error) {
	var types []KeyType
	for _, name := range names {
		t, ok := keyTypeNamed(name)
		if !ok {
			return nil, fmt.Errorf("unknown key type %q", name)
		}
		types = append(types, t)
	}
	return types, nil
}

func decodeGroup(in *groupJSON) (Group, error) {
	g := Group{
		ID: in.ID, Method: in.Method, SubMethod: in.SubMethod, Partitions: make([]Partition, len(in.Partitions)),
		Assign: in.Assign, Entries: in.Entries,
	}
	var err error
	if g.Key, err = decodeTypes(in.Key); err != nil {
		return Group{}, err
	}
	if g.SubKey, err = decodeTypes(in.SubKey); err != nil {
		return Group{}, err
	}
	for i := range in.Partitions {
		if g.Partitions[i], err = decodePartition(&g, &in.Partitions[i]); err != nil {
			return Group{}, fmt.Errorf("partition %q: %w", in.Partitions[i].Name, err)
		}
	}
	return g, nil
}

func decodePartition(g *Group, in *partitionJSON) (Partition, error) {
	p := Partition{Name: in.Name, Parent: in.Parent, Shard: in.Shard, Default: in.Default}
	var err error
	if p.From, err = decodeBounds(g.Key, in.From); err != nil {
		return Partition{}, fmt.Errorf("lower bound: %w", err)
	}
	if p.To, err = decodeBounds(g.Key, in.To); err != nil {
		return Partition{}, fmt.Errorf("upper bound: %w", err)
	}
	if p.Values, err = decodeTuples(g.Key, in.Values); err != nil {
		return Partition{}, fmt.Errorf("values: %w", err)
	}
	if g.Method != MethodHash && g.SubMethod != MethodHash {
		if in.HashFrom != "" || in.HashTo != "" {
			return Partition{}, errors.New("a hash interval in a group without hash")
		}
		return p, nil
	}
	if p.HashFrom, err = decodeHash(in.HashFrom); err != nil {
		return Partition{}, err
	}
	p.HashTo, err = decodeHash(in.HashTo)
	return p, err
}

func decodeHash(s string) (uint64, error) {
	h, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("%q is not a point of the hash space: sixteen hexadecimal digits", s)
	}
	return h, nil
}

func decodeBounds(types []KeyType, in []boundJSON) ([]Bound, error) {
	if len(in) > 0 && len(in) != len(types) {
		return nil, fmt.Errorf("%d columns, the key has %d", len(in), len(types))
	}
	var bounds []Bound
	for i, b := range in {
		switch {
		case b.Min && !b.Max && b.Value == nil:
			bounds = append(bounds, Bound{Kind: MinValue})
		case b.Max && !b.Min && b.Value == nil:
			bounds = append(bounds, Bound{Kind: MaxValue})
		case b.Value != nil && !b.Min && !b.Max:
			v, err := ParseText(types[i], *b.Value)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", *b.Value, err)
			}
			bounds = append(bounds, Bound{Kind: Finite, Value: v})
		default:
			return nil, errors.New("a bound is one of min, value and max")
		}
	}
	return bounds, nil
}

func decodeTuples(types []KeyType, in [][]*string) ([][]Value, error) {
	var tuples [][]Value
	for _, texts := range in {
		if len(texts) != len(types) {
			return nil, fmt.Errorf("%d columns, the key has %d", len(texts), len(types))
		}
		tuple := make([]Value, len(texts))
		for i, text := range texts {
			if text == nil {
				tuple[i] = Null(types[i])
				continue
			}
			v, err := ParseText(types[i], *text)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", *text, err)
			}
			tuple[i] = v
		}
		tuples = append(tuples, tuple)
	}
	return tuples, nil
}

func decodeTable(in *tableJSON) (Table, error) {
	t := Table{
		Name: TableName{Schema: in.Schema, Name: in.Name}, Kind: in.Kind, Group: in.Group,
		UniqueLocal: in.UniqueLocal, Shard: in.Shard, Mirror: in.Mirror,
	}
	var err error
	if t.Key, t.KeyTypes, t.KeyTypmods, err = decodeColumns(in.Key); err != nil {
		return Table{}, err
	}
	if t.SubKey, t.SubKeyTypes, t.SubKeyTypmods, err = decodeColumns(in.SubKey); err != nil {
		return Table{}, err
	}
	if h := in.Hold; h != nil {
		t.Hold = &Hold{
			ID: h.ID, Reason: h.Reason, Owner: h.Owner, Decided: h.Decided, Shards: h.Shards, GIDs: h.GIDs, XIDs: h.XIDs, Drop: h.Drop,
			Rename: (*TableName)(h.Rename),
		}
	}
	return t, nil
}

func decodeColumns(in []columnJSON) (names []string, types []KeyType, typmods []int32, err error) {
	for i, column := range in {
		t, ok := keyTypeNamed(column.Type)
		if !ok && (column.Type != "" || types != nil) {
			return nil, nil, nil, fmt.Errorf("column %q: unknown key type %q", column.Name, column.Type)
		}
		if (column.Typmod != nil) != (in[0].Typmod != nil) {
			return nil, nil, nil, errors.New("either all key columns have a type modifier or none")
		}
		if column.Typmod != nil {
			if i == 0 {
				typmods = make([]int32, 0, len(in))
			}
			typmods = append(typmods, *column.Typmod)
		}
		names = append(names, column.Name)
		if ok {
			types = append(types, t)
		}
	}
	return names, types, typmods, nil
}
