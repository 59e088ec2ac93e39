// Package history checks what concurrent transactions saw against the isolation that was promised to
// them. Transactions append values to lists and read lists; as every value is appended once, a read tells
// the order in which the appends before it took place, and from those orders follow the dependencies
// between transactions. A cycle of dependencies is an anomaly, and which edges it has says which.
//
// The method is that of Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
// Observations", VLDB 2020); the names of the anomalies are Adya's (PhD thesis, MIT 1999):
//
//	G0        a cycle of writes over writes (ww)
//	G1a       a read of what was rolled back
//	G1b       a read of a state in the middle of a transaction
//	G1c       a cycle of ww and of reads of writes (wr)
//	G-single  such a cycle with exactly one read of what was overwritten (rw): read skew
//
// It is pure and imports nothing of ours.
package history
