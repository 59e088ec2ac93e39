package backend

import (
	"encoding/base32"
	"encoding/binary"
	"hash/fnv"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// memberDigits is the length of what MemberName adds.
const memberDigits = 7

// MemberName is the application_name of the other connections of a transaction whose first is the backend pid of a
// shard: by it another router sees that they belong together, at no cost for transactions on one shard.
// router is the application_name of the router's connections. It returns "" where Postgres would cut the name.
func MemberName(router string, shard directory.ShardID, pid uint32) string {
	if len(router)+memberDigits > maxApplicationName || !strings.HasSuffix(router, ".") {
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(shard)) // never fails
	_, _ = h.Write(binary.BigEndian.AppendUint32([]byte{0}, pid))
	sum := h.Sum(nil)
	return router + strings.ToLower(base32.StdEncoding.EncodeToString(sum))[:memberDigits]
}

// ApplicationName is the application_name of every connection.
func (p *Pools) ApplicationName() string { return p.cfg.ApplicationName }

// ApplicationName is the application_name that the connection has between transactions.
func (c *Conn) ApplicationName() string { return c.pool.owner.cfg.ApplicationName }

// Backend is the server process that the canceller is for; ok is false once the connection was released.
func (k Canceller) Backend() (shard directory.ShardID, pid uint32, ok bool) {
	k.conn.lease.mu.Lock()
	defer k.conn.lease.mu.Unlock()
	return k.conn.Shard(), k.conn.pid, k.conn.lease.held && k.conn.lease.number == k.lease
}
