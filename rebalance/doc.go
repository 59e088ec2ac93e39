// Package rebalance decides how rows move between shards: a move as a state machine, Step(event) → (Move, effects),
// and which moves would balance the cluster.
//
// It owns those decisions and no effect of them; package rebalance/worker performs the effects. It is pure: time and
// randomness are input, and it imports no net, os, etcd or slog.
//
// It may import directory. It never imports router, nor router it: they meet through epochs in etcd and rows on the
// shards only.
package rebalance
