package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// The statements of a transaction with mirrored writes. Both run under the client's role. Give their
// parameters as parameters, never in the text: other sessions of the role can read the text.
const (
	// DrainQuery takes changes out of the authority's outbox ($1 is the seal) and returns the IDs of the mirrors
	// with their payloads, NULL where the table is gone. No row: the outbox is empty.
	DrainQuery = "SELECT mirror, payload FROM shardyard.mirror_drain(500, $1)"
	// ApplyQuery writes payloads ($1, several joined by commas) on a mirror; $2 is the seal.
	ApplyQuery = "SELECT shardyard.mirror_apply($1, $2)"
)

// The messages that are sealed.
const (
	DrainMessage = "drain"
	applyPrefix  = "apply:"
)

// ApplyMessage is what is sealed for ApplyQuery.
func ApplyMessage(payloads string) string { return applyPrefix + payloads }

// Seal proves to a shard that the message is the router's: it is good for one backend and one message.
func Seal(secret []byte, pid uint32, message string) string {
	body := strconv.FormatUint(uint64(pid), 10) + ":" + message
	inner := sha256.Sum256(append(append([]byte(nil), secret...), body...))
	outer := sha256.Sum256(append(append([]byte(nil), secret...), inner[:]...))
	return hex.EncodeToString(outer[:])
}

// Dialer opens a connection of the service role to a shard's primary. The caller closes it.
type Dialer func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)

// Secrets keeps the secrets of the shards' databases. It is safe for concurrent use.
type Secrets struct {
	dial Dialer

	mu    sync.Mutex
	known map[place][]byte
}

type place struct {
	primary  directory.Endpoint
	database string
}

// NewSecrets returns an empty store; dial reaches the shards as the service role.
func NewSecrets(dial Dialer) *Secrets {
	return &Secrets{dial: dial, known: make(map[place][]byte)}
}

// closeTimeout bounds the goodbye to a server.
const closeTimeout = 2 * time.Second

// maxSecrets bounds the store.
const maxSecrets = 10_000

// Of gives the secret of a database on a shard, asked for once.
func (s *Secrets) Of(ctx context.Context, shard directory.Shard, database string) ([]byte, error) {
	at := place{shard.Primary, database}
	s.mu.Lock()
	secret := s.known[at]
	s.mu.Unlock()
	if secret != nil {
		return secret, nil
	}
	conn, err := s.dial(ctx, shard, database)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer closeConn(ctx, conn)
	if err := conn.QueryRow(ctx, "SELECT secret FROM shardyard.seal").Scan(&secret); err != nil {
		return nil, fmt.Errorf("read the secret of shard %s: %w", shard.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSecrets {
		clear(s.known)
	}
	s.known[at] = secret
	return secret, nil
}

// Forget drops the secret of a shard's database, after the shard refused a seal: the database was made anew.
func (s *Secrets) Forget(shard directory.Shard, database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, place{shard.Primary, database})
}

// ForgetDatabase drops the secrets of a database on all shards: it was dropped.
func (s *Secrets) ForgetDatabase(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.known, func(at place, _ []byte) bool { return at.database == database })
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // nothing is open on it any more
}
