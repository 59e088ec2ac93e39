package planner

import (
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/lexer"
)

// Config configures a Planner.
type Config struct {
	// CacheSize is the greatest number of plans kept, about 1.3 KB each. Defaults to 25,000: 10,000 statements, and some whose
	// plans depend on literals, leave half of it empty, so that no use of them needs to be noted.
	CacheSize int
}

// Env is what a statement's meaning depends on besides its text: the map, the catalog and the
// session's settings. The planner keeps no reference to it after a call.
type Env struct {
	Map     *directory.Map
	Catalog *catalog.Snapshot
	// SearchPath is the setting's elements as written, "$user" included.
	SearchPath []string
	// User is the current role (SET ROLE counts), for "$user".
	User string
	// Settings that change what literals mean.
	TimeZone, DateStyle, IntervalStyle string
	// StandardConformingStrings off: a text with backslashes is read by the home shard only (Plan.ParseOnly).
	StandardConformingStrings bool
	// TempNames are the session's temporary relations; they hide others of the same name and
	// live on the home shard.
	TempNames []string
}

// Statement is one statement of a client's text. The planner fills its unexported part in Plan, so it
// belongs to one session at a time; keep it with the plan, since Targets needs it.
type Statement struct {
	Text   string // of this statement alone, without the semicolon that separates it from the next
	Offset int    // bytes in front of it in the client's text
	Chars  int    // characters in front of it: add to the positions of errors
	// Native: the shard answers the statement's calls of currval and lastval, see Plan.Calls.
	Native bool
	// Borrowed: Text views a buffer that its owner will use again. Plan makes it the statement's own where something is to be made
	// of it; who keeps it calls Own.
	Borrowed bool

	literals   []lexer.Literal
	normalised bool
	unparsable bool // our parser rejects the whole text: see Plan.ParseOnly
}

// Reset makes the statement another one, whose buffers are reused. text views a buffer, see Borrowed.
func (st *Statement) Reset(text string) {
	*st = Statement{Text: text, Borrowed: true, literals: st.literals[:0]}
}

// Own gives the statement a copy of a text that it has borrowed.
func (st *Statement) Own() {
	if st.Borrowed {
		st.Text, st.Borrowed = strings.Clone(st.Text), false
	}
}

// Args are the values of one execution.
type Args struct {
	// Map is the map that the plan was made under; Targets fails with 40001 if its epoch is another.
	Map *directory.Map
	// Statement is what was planned (or one of the same text).
	Statement *Statement
	// Params are the parameters as bound (nil: NULL); Formats their format codes, none, one or one
	// for each as in Bind. Types are the parameters' type OIDs where known (0: not known).
	Params  [][]byte
	Formats []int16
	Types   []uint32
	// Entries is what is known of the entries of groups by DIRECTORY; see Target.Missing. nil knows nothing.
	Entries *directory.Entries
	// Supplied are the values that were computed for Plan.Insert.Supplied, in its order, in binary format
	// (nil: NULL).
	Supplied [][]byte
	// Transcoded: the client's encoding is not the server's, so that texts beyond ASCII in the
	// statement and the parameters are not the texts that the server stores.
	Transcoded bool

	missing []directory.MissingEntry // collected on the way, for Target.Missing
}

// Target is where one execution goes.
type Target struct {
	// Shards has at least one shard, except for plans that no shard runs. Several only for plans
	// that may be scattered. It belongs to the plan or the map: do not change it.
	Shards []directory.ShardID
	// Whole means that the client's own text goes to the only shard and its answer is the client's
	// answer, unchanged, even if the plan is a Scatter.
	Whole bool
	// Missing are keys of groups by DIRECTORY whose entries are not known: then there is nothing else in the
	// Target. Look them up (or assign them, where they say so) into an Entries of this execution, and ask again.
	Missing []directory.MissingEntry
	// Rows says for each row of an INSERT … VALUES whose text is to be split (see Plan.Split), or of other VALUES
	// that are spread (see SpreadData), which of Shards it belongs to.
	Rows []int32
	// Ask means that the value of a key column to be stored is not certain, so that nothing else is set: the plan that
	// Plan.Asking gives has the keys computed by a shard.
	Ask bool
	// Transfer means that the rows are brought from shard to shard, as Plan.Transfer says.
	Transfer bool
	// Combine means that pieces are read on their shards and the rest runs on the home shard, as the plan that Planner.Combine gives says.
	Combine bool
}
