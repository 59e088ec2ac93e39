// Package metrics counts what sessions do: histograms of durations and counters that cost an atomic addition each, and no
// lock and no allocation. Whoever shows them takes a snapshot.
//
// It owns the buckets, the kinds of requests and the striping; who shows what in which form is the business of
// router/console (SHOW STATS) and router/admin (/metrics).
//
// It imports nothing of ours.
package metrics
