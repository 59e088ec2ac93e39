// Package etcd keeps the directory in etcd: it loads and watches the partition maps of a cluster, changes
// them by compare-and-swap, registers routers under leases, records which epochs they acknowledged, and
// saves snapshots to a local file. It also holds the embedded etcd server of the development cluster.
// It may import directory and nothing else of this module.
//
// # Keys
//
// Everything lies under one root, <prefix><cluster>/:
//
//	state/cluster                    the Cluster, JSON
//	state/maps/<database>            the manifest of a database's map: its epoch and the hashes of its pieces
//	blobs/<database>/<sha256>        one piece of the encoded map, compressed, addressed by its content
//	directories/<database>/<set>     a set of entries of a DIRECTORY group of the map: there as long as the group
//	entries/<set>/<key>              one entry: the canonical encoding of a key and the shard of its rows
//	counts/<set>/<writer>.<n>        how many entries of the set the writer made, by shard
//	epochs/<database>                the last epoch of a database that was dropped
//	routers/<name>                   a live router, its incarnation and the epochs it acknowledged (leased)
//	seen/<name>/<instance>           a router that registered and has not said goodbye (not leased)
//
// A map may be far bigger than etcd's request limit (1.5 MB): its encoding is cut by content into pieces,
// so that a change writes only the pieces it touches. Pieces are written first, under a lease that lets
// them vanish if their writer dies; the one transaction that compares and flips the manifest also takes
// the lease off the pieces it brings in and puts one on those it leaves behind, which readers of the old
// manifest may go on reading for Config.BlobGrace. So no sweep is needed and none can delete too much.
//
// # What an outage costs
//
// Nothing but changes: Apply and its like fail with ErrUnavailable after Config.RequestTimeout, watchers
// and members wait with a bounded backoff and go on where they were.
package etcd
