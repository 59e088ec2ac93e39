package etcd

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

const (
	manifestFormat = 1
	// Sizes of a piece before compression, in bytes. The cuts are chosen by content between the two
	// (about pieceMin + 512 KiB on average), so that an insertion moves only the cuts next to it.
	pieceMin = 256 << 10
	pieceMax = 2 << 20
	// pieceStored is the most that a piece may take in etcd; what does not compress below it is halved.
	pieceStored = 512 << 10
	// encodedMax bounds what a reader will take for a map.
	encodedMax = 512 << 20
	// tokensKept is how many changes back a writer that lost its connection can find its own change.
	tokensKept = 32
)

// errPieceMissing: a reader followed a manifest that has been replaced for longer than the grace time.
var errPieceMissing = errors.New("a piece of the map is gone")

// manifest says of what pieces a map consists. Swapping it is what changes the map.
type manifest struct {
	Format int             `json:"format"`
	Epoch  directory.Epoch `json:"epoch"`
	Bytes  int             `json:"bytes"`  // of the encoded map
	Sum    string          `json:"sum"`    // SHA-256 of the encoded map
	Pieces []string        `json:"pieces"` // SHA-256 of each, before compression, in order
	// Tokens of the last changes, newest last: a writer that lost its connection finds its own here.
	Tokens []string `json:"tokens"`
}

func decodeManifest(value []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(value, &m); err != nil {
		return m, fmt.Errorf("decode manifest: %w: %w", ErrCorrupt, err)
	}
	if m.Format != manifestFormat {
		return m, fmt.Errorf("decode manifest: format %d is not known, only %d", m.Format, manifestFormat)
	}
	if m.Bytes < 0 || m.Bytes > encodedMax {
		return m, fmt.Errorf("decode manifest: %w: a map of %d bytes", ErrCorrupt, m.Bytes)
	}
	return m, nil
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// piece is a part of an encoded map.
type piece struct {
	sum string
	raw []byte
}

// gear holds one random word for each byte value, for the rolling hash that chooses the cuts (FastCDC,
// Xia et al., USENIX ATC 2016). The words are those of splitmix64 from seed 0: they never change, or
// equal contents would be cut differently.
var gear = func() (words [256]uint64) {
	var state uint64
	for i := range words {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		words[i] = z ^ z>>31
	}
	return words
}()

// cut divides an encoded map into pieces by its content.
func cut(encoded []byte) []piece {
	const mask = uint64(1<<19-1) << 45
	var pieces []piece
	for len(encoded) > 0 {
		end := min(len(encoded), pieceMax)
		var hash uint64
		for i := min(pieceMin, end); i < end; i++ {
			if hash = hash<<1 + gear[encoded[i]]; hash&mask == 0 {
				end = i + 1
			}
		}
		pieces = append(pieces, piece{sum: sumOf(encoded[:end]), raw: encoded[:end]})
		encoded = encoded[end:]
	}
	return pieces
}

func compress(raw []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("compress a piece: %w", err)
	}
	if _, err := w.Write(raw); err != nil {
		return nil, fmt.Errorf("compress a piece: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress a piece: %w", err)
	}
	return out.Bytes(), nil
}

func decompress(stored []byte) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(stored)), pieceMax+1))
	if err != nil {
		return nil, fmt.Errorf("decompress a piece: %w: %w", ErrCorrupt, err)
	}
	return raw, nil
}

// readPieces reads and checks the encoded map.
func (s *Store) readPieces(ctx context.Context, database string, m manifest) ([]byte, error) {
	encoded := make([]byte, 0, m.Bytes)
	for _, sum := range m.Pieces {
		kv, err := s.getOne(ctx, "read a piece", s.blobKey(database, sum))
		if err != nil {
			return nil, err
		}
		if kv == nil {
			return nil, fmt.Errorf("read piece %s: %w", sum, errPieceMissing)
		}
		raw, err := decompress(kv.Value)
		if err != nil {
			return nil, err
		}
		if sumOf(raw) != sum {
			return nil, fmt.Errorf("check piece %s: %w", sum, ErrCorrupt)
		}
		encoded = append(encoded, raw...)
	}
	if sumOf(encoded) != m.Sum {
		return nil, fmt.Errorf("check the map's sum: %w", ErrCorrupt)
	}
	return encoded, nil
}

// writePieces stores those pieces that are not in known, under lease, and returns the list of all of
// them and of those that were new.
func (s *Store) writePieces(
	ctx context.Context, database string, pieces []piece, known map[string]bool, lease clientv3.LeaseID,
) (all, added []string, err error) {
	fresh := map[string]bool{}
	for len(pieces) > 0 {
		p := pieces[0]
		pieces = pieces[1:]
		if !known[p.sum] && !fresh[p.sum] {
			stored, err := compress(p.raw)
			if err != nil {
				return nil, nil, err
			}
			if len(stored) > pieceStored {
				half := len(p.raw) / 2
				pieces = append([]piece{
					{sum: sumOf(p.raw[:half]), raw: p.raw[:half]}, {sum: sumOf(p.raw[half:]), raw: p.raw[half:]},
				}, pieces...)
				continue
			}
			if err := s.writePiece(ctx, s.blobKey(database, p.sum), stored, lease); err != nil {
				return nil, nil, err
			}
			fresh[p.sum] = true
			added = append(added, p.sum)
		}
		all = append(all, p.sum)
	}
	return all, added, nil
}

// writePiece creates the key and never touches one that exists. Invariant: a piece without a lease is one
// that the current manifest names; putting a lease on it here would delete it under the manifest's feet.
func (s *Store) writePiece(ctx context.Context, key string, stored []byte, lease clientv3.LeaseID) error {
	return s.call(ctx, "write a piece", func(ctx context.Context) error {
		_, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(stored), clientv3.WithLease(lease))).
			Commit()
		return err
	})
}

// graceLease is the lease on pieces that are not, or no longer, named by a manifest. One lease serves
// all changes of half its life.
type graceLease struct {
	id    clientv3.LeaseID
	until time.Time
}

func (s *Store) leaseForPieces(ctx context.Context) (clientv3.LeaseID, error) {
	s.mu.Lock()
	current := s.grace
	s.mu.Unlock()
	if current.id != clientv3.NoLease && time.Now().Before(current.until) {
		return current.id, nil
	}
	until := time.Now().Add(s.config.BlobGrace)
	var id clientv3.LeaseID
	err := s.call(ctx, "grant a lease for pieces", func(ctx context.Context) error {
		response, err := s.client.Grant(ctx, max(2, int64(2*s.config.BlobGrace/time.Second)))
		if err == nil {
			id = response.ID
		}
		return err
	})
	if err != nil {
		return clientv3.NoLease, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grace = graceLease{id: id, until: until}
	return id, nil
}

// forgetLease makes the next change take a new lease, where this one turned out to be gone.
func (s *Store) forgetLease(id clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grace.id == id {
		s.grace = graceLease{}
	}
}

// vanished says whether a lease or a piece that a change rests on is gone, so that it has to be written again.
func vanished(err error) bool {
	return errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, rpctypes.ErrKeyNotFound)
}
