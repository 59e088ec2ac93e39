package directory

// Hold marks a table that is being changed (SHARD TABLE, DDL on several shards):
// routers let statements on it wait, for a bounded time, for an epoch without the
// hold.
//
// How a change of several shards uses it: SetHold is published (nobody uses the
// table any more), the shards prepare their part under GIDs, then the outcome is
// published (DecideHold, or AddTable/ColocateTable/PinTable whose Table carries
// the same hold with Decided set): that publication is the decision. After that
// the prepared parts are committed and ClearHold ends it. Who finds a hold whose
// owner is gone commits the GIDs when it is decided, rolls them back when it is
// not, and clears it; it needs nothing that is not in the hold.
//
// DDL inside a client's transaction uses it otherwise: the transaction commits as any other does, so the map
// decides nothing. When its commit begins, the hold notes the transaction on each shard (NoteHold, XIDs) and what
// becomes of the table. What became of those transactions is then asked of the shards, by whoever ends the hold.
type Hold struct {
	ID      string    // unique: names this change
	Reason  string    // what people see, for example "alter table public.orders"
	Owner   string    // name of the router that performs the change
	Decided bool      // the change will be completed, whatever happens to its owner
	Shards  []ShardID // shards that take part
	GIDs    []string  // gid of the prepared transaction on each of Shards, same order; empty when nothing is prepared

	// XIDs, set when the commit of a client's transaction begins, are its ids (xid8) on each of Shards, same order;
	// "" where it did nothing.
	XIDs []string

	// What ClearHold does to the table when the hold is decided.
	Drop   bool       // it is gone (DROP TABLE) or lives on the home shard again (UNSHARD TABLE)
	Rename *TableName // it has this name
}
