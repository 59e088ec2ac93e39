package directory

// Change is a step from a map to the next. Apply is pure: it leaves m as it is
// and gives a map whose epoch is one higher and which passes [Check].
type Change interface {
	Apply(m *Map) (*Map, error)
}
