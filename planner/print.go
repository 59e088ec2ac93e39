package planner

// String describes the plan in a few lines, for EXPLAIN and for tests.
func (pl *Plan) String() string {
	return pl.Kind.String()
}
