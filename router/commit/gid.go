package commit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/shardyard/shardyard/directory"
)

const (
	// MaxLength is the length of the longest identifier that Postgres takes for a prepared transaction, in bytes.
	MaxLength = 199
	// prefix begins every identifier of ours.
	prefix = "shardyard"
	// parts of an identifier. The function shardyard.decide knows that the last one is the Xid.
	parts = 7

	maxClusterName, maxRouterName, maxInstance = 24, 40, 16
)

// GID identifies one transaction over several shards, for ever and on all of them: no two transactions have
// the same, whatever routers are restarted. It says where the transaction is decided.
type GID struct {
	Cluster  string // ClusterName of the map's cluster
	Router   string // the router's name
	Instance string // the router's process among all that had the name
	Number   uint64 // of the transaction in that process
	// Agent is the last agent: the shard that decides.
	Agent directory.ShardID
	// Xid is the id of the transaction on the last agent (xid8). Only that transaction can decide, and
	// whether it ended can be asked of Postgres.
	Xid uint64
}

// ClusterName is a cluster's id in the form in which identifiers carry it.
func ClusterName(id string) string {
	if plain(id, maxClusterName) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:maxClusterName/2])
}

// plain reports a name that can be a part of an identifier and of a literal as it is.
func plain(name string, longest int) bool {
	if name == "" || len(name) > longest {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// String is the identifier as shards have it: at most MaxLength bytes of letters, digits and "_-./".
func (g GID) String() string {
	return strings.Join([]string{
		prefix, g.Cluster, g.Router, g.Instance, strconv.FormatUint(g.Number, 36), string(g.Agent), strconv.FormatUint(g.Xid, 10),
	}, "/")
}

// Parse reads an identifier; ok is false for every text that String does not give.
func Parse(text string) (g GID, ok bool) {
	if len(text) > MaxLength {
		return GID{}, false
	}
	part := strings.Split(text, "/")
	if len(part) != parts || part[0] != prefix {
		return GID{}, false
	}
	number, err := strconv.ParseUint(part[4], 36, 64)
	if err != nil {
		return GID{}, false
	}
	xid, err := strconv.ParseUint(part[6], 10, 64)
	if err != nil {
		return GID{}, false
	}
	g = GID{Cluster: part[1], Router: part[2], Instance: part[3], Number: number, Agent: directory.ShardID(part[5]), Xid: xid}
	return g, g.valid() && g.String() == text
}

func (g GID) valid() bool {
	return plain(g.Cluster, maxClusterName) && plain(g.Router, maxRouterName) && plain(g.Instance, maxInstance) && g.Agent.Valid()
}

// Origin gives the transactions of one router process their identifiers. It is safe for concurrent use.
type Origin struct {
	router, instance string
	number           atomic.Uint64
}

// NewOrigin names a router process. instance must never have been used before with this router's name.
func NewOrigin(router, instance string) (*Origin, error) {
	if !plain(router, maxRouterName) || !plain(instance, maxInstance) {
		return nil, fmt.Errorf("name transactions of router %q, instance %q: want 1 to %d and 1 to %d letters, digits, '_', '-' or '.'",
			router, instance, maxRouterName, maxInstance)
	}
	return &Origin{router: router, instance: instance}, nil
}

// Next identifies a new transaction that the shard agent decides in its transaction xid.
func (o *Origin) Next(cluster string, agent directory.ShardID, xid uint64) GID {
	return GID{
		Cluster: ClusterName(cluster), Router: o.router, Instance: o.instance, Number: o.number.Add(1), Agent: agent, Xid: xid,
	}
}

// DecideMessage is what is sealed for the last agent (directory/mirror.Seal), which takes a decision from nobody
// else: that the transaction is decided over this connection. participants are the other shards, which have prepared it.
func DecideMessage(gid GID, participants []directory.ShardID) string {
	return "decide:" + gid.String() + ":" + joined(participants)
}

// DecideSQL is what decides the transaction and commits it on the last agent, in one message. seal is that of
// DecideMessage.
func DecideSQL(gid GID, participants []directory.ShardID, seal string) string {
	return "SELECT shardyard.decide('" + gid.String() + "', '{" + joined(participants) + "}', '" + seal + "'); COMMIT"
}

func joined(shards []directory.ShardID) string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = string(shard)
	}
	return strings.Join(names, ",")
}
