// Package worker performs the effects that package rebalance decides on: it copies and verifies rows, installs and
// removes the capture of changes, raises floors, publishes maps, and reports progress.
//
// It owns the election of the one worker that acts, and the order "persist, then act": every effect is idempotent,
// because a restart performs the effects of the current state again.
//
// It may import rebalance, directory and its subpackages; never router.
package worker
