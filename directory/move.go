package directory

// MovePhase is the state of a move; the phases follow each other in the order
// of the constants.
type MovePhase string

// The phases of a move.
const (
	MovePlanned   MovePhase = "planned"
	MoveDualWrite MovePhase = "dual_write"
	MoveCopy      MovePhase = "copy"
	MoveVerify    MovePhase = "verify"
	MoveCutover   MovePhase = "cutover"
	MoveReverse   MovePhase = "reverse"
	MoveCleanup   MovePhase = "cleanup"
	MoveDone      MovePhase = "done"
	MoveAborted   MovePhase = "aborted" // allowed until MoveCutover
)

var movePhases = []MovePhase{
	MovePlanned, MoveDualWrite, MoveCopy, MoveVerify, MoveCutover, MoveReverse, MoveCleanup, MoveDone, MoveAborted,
}

func (p MovePhase) valid() bool {
	for _, known := range movePhases {
		if p == known {
			return true
		}
	}
	return false
}

// Move is one online transfer of a partition from a shard to another. The map
// has room for it; no change starts one yet.
type Move struct {
	ID        string
	Group     GroupID
	Partition string
	From, To  ShardID
	Phase     MovePhase
}
