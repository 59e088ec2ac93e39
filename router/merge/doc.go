// Package merge combines the rows that several shards return for one statement: the ordered k-way merge, OFFSET and
// LIMIT over the whole, and the removal of columns that were only asked for to sort by.
//
// Values are compared as they come over the wire, text or binary, exactly as the default btree operator class of their
// type does in Postgres. Types and collations for which that is not exact are not mergeable (see Mergeable).
//
// The package is pure: rows are the bodies of DataRow messages, pulled from sources on demand. It imports only the
// standard library.
package merge
