package directory

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ShardID is a shard's name, for example "s1": [a-z_][a-z0-9_]*, at most 63
// bytes, so that it is a plain identifier in sharding statements.
type ShardID string

// maxNameLength is Postgres's limit of an identifier in bytes (NAMEDATALEN-1).
const maxNameLength = 63

// Valid reports whether the name has the form of a shard's name.
func (id ShardID) Valid() bool {
	if id == "" || len(id) > maxNameLength {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		letter := c == '_' || (c >= 'a' && c <= 'z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Endpoint is the address of one Postgres server.
type Endpoint struct {
	Host string // a name or an IP address, without brackets
	Port uint16
}

// String gives host:port, an IPv6 address in brackets.
func (e Endpoint) String() string {
	host := e.Host
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(e.Port))
}

// valid reports whether the endpoint can be dialled at all.
func (e Endpoint) valid() bool {
	return e.Host != "" && e.Port != 0 && utf8.ValidString(e.Host) && !strings.ContainsAny(e.Host, " \t\r\n\x00")
}

// ShardState says whether a shard may be given new partitions.
type ShardState string

// The states of a shard.
const (
	ShardActive   ShardState = "active"   // may be given partitions
	ShardDraining ShardState = "draining" // serves what it has, is given nothing new
)

// Shard is one primary Postgres and its replicas.
type Shard struct {
	ID       ShardID
	Primary  Endpoint
	Replicas []Endpoint
	State    ShardState
}
