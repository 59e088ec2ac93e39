package router

import (
	"context"
	"errors"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
)

// locateRounds bounds how often entries are looked up for one execution. Each round looks up others: those that
// were remembered in the round before and are not any more.
const locateRounds = 10

// locate finds the shards of an execution by its keys. Where these are keys of a table by DIRECTORY whose entries
// are not remembered, it looks them up, or makes them for rows that are to be stored.
func (c *Session) locate(ctx context.Context, plan *planner.Plan, args planner.Args) (planner.Target, error) {
	args.Entries = c.server.entries.Known()
	target, err := plan.Targets(args)
	if err != nil || len(target.Missing) == 0 {
		return target, err
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	// That a key has no entry is true of this moment, so it is learned for this execution only.
	args.Entries = directory.NewEntries(c.server.entries.Cache())
	shown := plan.Explain != nil && !plan.Explain.Analyze
	for range locateRounds {
		if shown { // nothing is stored
			target.Missing = slices.Clone(target.Missing)
			for i := range target.Missing {
				target.Missing[i].Store = false
			}
		}
		if err := c.resolve(ctx, target.Missing, args.Entries); err != nil {
			return planner.Target{}, err
		}
		if target, err = plan.Targets(args); err != nil || len(target.Missing) == 0 {
			return target, err
		}
		if shown && slices.ContainsFunc(target.Missing, func(m directory.MissingEntry) bool { return m.Store }) {
			return planner.Target{}, pgerr.Unsupported("a key has no entry yet, so it cannot be told which shard a row with it will be on",
				"EXPLAIN the statement with a key that has an entry.")
		}
	}
	return planner.Target{}, errNewerMap("the entries of the keys kept changing")
}

// resolve looks up the entries of keys, and makes those that are to be stored and have none, into what one
// execution knows. It is for whoever routes rows by directory.Entries.Locate: once for many keys.
func (c *Session) resolve(ctx context.Context, missing []directory.MissingEntry, into *directory.Entries) error {
	err := c.server.entries.Resolve(ctx, c.view.partitions, missing, into)
	if errors.Is(err, etcd.ErrUnavailable) {
		return pgerr.New(pgerr.CannotConnectNow, "it cannot be told now which shard has a key").
			WithDetail("The directory does not answer, and this router has not used the key before.").
			WithHint("Try again when etcd is back. Keys that were used lately work meanwhile.").Because(err)
	}
	return err
}

// resolveAll looks entries up, or makes them.
func (c *Session) resolveAll(ctx context.Context, missing []directory.MissingEntry) (*directory.Entries, error) {
	entries := directory.NewEntries(c.server.entries.Cache())
	return entries, c.resolve(ctx, missing, entries)
}

// retainEntries forgets the entries of groups that are gone. Only the watch calls it.
func (s *Server) retainEntries(snapshot *etcd.Snapshot) {
	var sets []string
	maps := make([]*directory.Map, 0, len(snapshot.Maps))
	for _, m := range snapshot.Maps {
		sets = append(sets, m.EntrySets()...)
		maps = append(maps, m)
	}
	slices.Sort(sets)
	gone := slices.ContainsFunc(s.entrySets, func(set string) bool { return !slices.Contains(sets, set) })
	s.entrySets = sets
	if gone {
		s.entries.Retain(maps...)
	}
}
