package directory

import "slices"

// keySet is the set of keys that constraints allow: any combination of its
// columns' values.
type keySet []columnSet

// columnSet is what constraints leave of one column: a list of values, or an
// interval, or everything.
type columnSet struct {
	typ    KeyType
	values []Value // ascending, without duplicates and NULL; nil: an interval
	lo, hi *Value  // of an interval; nil: without end
	loOpen bool
	hiOpen bool
	none   bool // no value is left
}

// newKeySet reads the constraints of the columns of a key.
func newKeySet(types []KeyType, constraints []Constraint) keySet {
	keys := make(keySet, len(types))
	for i, t := range types {
		keys[i].typ = t
		if i < len(constraints) {
			keys[i] = newColumnSet(t, &constraints[i])
		}
	}
	return keys
}

func newColumnSet(t KeyType, c *Constraint) columnSet {
	set := columnSet{typ: t}
	set.limit(c)
	if c.Values != nil && sameFamily(t, c.Values) {
		values := make([]Value, 0, len(c.Values))
		for _, v := range c.Values {
			if !v.null && set.admits(v) {
				values = append(values, v)
			}
		}
		slices.SortFunc(values, Compare)
		set.values = slices.CompactFunc(values, func(a, b Value) bool { return Compare(a, b) == 0 })
		set.lo, set.hi = nil, nil
		set.none = set.none || len(set.values) == 0
		return set
	}
	set.enumerate()
	return set
}

// limit takes over the bounds of a constraint.
func (s *columnSet) limit(c *Constraint) {
	for _, bound := range []*Value{c.Lo, c.Hi} {
		// A comparison with NULL is never true.
		if bound != nil && bound.null {
			s.none = true
			return
		}
	}
	if c.Lo != nil && c.Lo.t.Family() == s.typ.Family() {
		s.lo, s.loOpen = c.Lo, c.LoOpen
	}
	if c.Hi != nil && c.Hi.t.Family() == s.typ.Family() {
		s.hi, s.hiOpen = c.Hi, c.HiOpen
	}
	if s.lo != nil && s.hi != nil {
		order := Compare(*s.lo, *s.hi)
		s.none = order > 0 || order == 0 && (s.loOpen || s.hiOpen)
	}
}

func sameFamily(t KeyType, values []Value) bool {
	for i := range values {
		if values[i].t.Family() != t.Family() {
			return false
		}
	}
	return true
}

// enumerate makes a list of a short interval of whole numbers, and of a longer one
// an interval whose ends are in it.
func (s *columnSet) enumerate() {
	if s.none || !s.typ.integral() {
		if !s.none && s.lo != nil && s.hi != nil && Compare(*s.lo, *s.hi) == 0 {
			s.values = []Value{*s.lo}
		}
		return
	}
	if s.lo != nil && s.loOpen {
		if s.lo.i == 1<<63-1 {
			s.none = true
			return
		}
		closed := widest(*s.lo)
		closed.i++
		s.lo, s.loOpen = &closed, false
	}
	if s.hi != nil && s.hiOpen {
		if s.hi.i == -1<<63 {
			s.none = true
			return
		}
		closed := widest(*s.hi)
		closed.i--
		s.hi, s.hiOpen = &closed, false
	}
	if s.lo == nil || s.hi == nil {
		return
	}
	if s.lo.i > s.hi.i {
		s.none = true
		return
	}
	// Unsigned, since the difference may leave int64.
	if span := uint64(s.hi.i) - uint64(s.lo.i); span < maxEnumerated {
		s.values = make([]Value, 0, span+1)
		for n := uint64(0); n <= span; n++ {
			v := widest(*s.lo)
			v.i += int64(n)
			s.values = append(s.values, v)
		}
	}
}

// widest gives an integer as int8: an int4 plus one may be no int4, but is an int8
// that the column may hold.
func widest(v Value) Value {
	if v.t.Family() == FamilyInteger {
		v.t = Int8
	}
	return v
}

// admits reports whether a value that is not NULL lies between the bounds.
func (s *columnSet) admits(v Value) bool {
	if s.none {
		return false
	}
	if s.lo != nil {
		if c := Compare(v, *s.lo); c < 0 || c == 0 && s.loOpen {
			return false
		}
	}
	if s.hi != nil {
		if c := Compare(v, *s.hi); c > 0 || c == 0 && s.hiOpen {
			return false
		}
	}
	return true
}

// everything reports whether the column is not constrained at all.
func (s *columnSet) everything() bool {
	return !s.none && s.values == nil && s.lo == nil && s.hi == nil
}

// contains reports whether the column may have the value, or NULL.
func (s *columnSet) contains(v Value) bool {
	switch {
	case v.null:
		return s.everything()
	case s.values != nil:
		_, ok := slices.BinarySearchFunc(s.values, v, Compare)
		return ok
	}
	return s.admits(v)
}

// between reports whether the set has a value strictly between two bounds, and
// may say yes where two neighbouring values have none between them.
func (s *columnSet) between(from, to Bound) bool {
	if s.none {
		return false
	}
	if s.values != nil {
		at := 0
		if from.Kind == Finite {
			var found bool
			at, found = slices.BinarySearchFunc(s.values, from.Value, Compare)
			if found {
				at++
			}
		}
		return at < len(s.values) && (to.Kind == MaxValue || Compare(s.values[at], to.Value) < 0)
	}
	interval := columnSet{typ: s.typ, lo: s.lo, hi: s.hi, loOpen: s.loOpen, hiOpen: s.hiOpen}
	if from.Kind == Finite && (s.lo == nil || Compare(from.Value, *s.lo) >= 0) {
		interval.lo, interval.loOpen = &from.Value, true
	}
	if to.Kind == Finite && (s.hi == nil || Compare(to.Value, *s.hi) <= 0) {
		interval.hi, interval.hiOpen = &to.Value, true
	}
	narrowed := newColumnSet(s.typ, &Constraint{Lo: interval.lo, Hi: interval.hi, LoOpen: interval.loOpen, HiOpen: interval.hiOpen})
	return !narrowed.none
}

func (s *columnSet) least() (Value, bool) {
	switch {
	case s.values != nil:
		return s.values[0], true
	case s.lo != nil:
		return *s.lo, true
	}
	return Value{}, false
}

func (s *columnSet) greatest() (Value, bool) {
	switch {
	case s.values != nil:
		return s.values[len(s.values)-1], true
	case s.hi != nil:
		return *s.hi, true
	}
	return Value{}, false
}

func (k keySet) empty() bool {
	return slices.ContainsFunc(k, func(s columnSet) bool { return s.none })
}

func (k keySet) contains(key []Value) bool {
	for i := range k {
		if !k[i].contains(key[i]) {
			return false
		}
	}
	return true
}

// meets reports whether a key of the set lies in the range [from, to). No column
// is empty.
func (k keySet) meets(from, to []Bound) bool {
	return k.meetsFrom(0, from, to, true, true)
}

// meetsFrom looks at the columns from i on, given that those before can be equal
// to the lower bound's (low) or the upper bound's (high).
func (k keySet) meetsFrom(i int, from, to []Bound, low, high bool) bool {
	if !low && !high {
		return true // the columns before lie strictly inside: the rest is free
	}
	if i == len(k) {
		return !high // equal to the lower bound is inside, to the upper is not
	}
	lower, upper := Bound{Kind: MinValue}, Bound{Kind: MaxValue}
	if low {
		lower = from[i]
	}
	if high {
		upper = to[i]
	}
	if lower.Kind == MaxValue || upper.Kind == MinValue {
		return false
	}
	if k[i].between(lower, upper) {
		return true
	}
	atLower := low && lower.Kind == Finite && k[i].contains(lower.Value)
	atUpper := high && upper.Kind == Finite && k[i].contains(upper.Value)
	if low && high && lower.Kind == Finite && upper.Kind == Finite && Compare(lower.Value, upper.Value) == 0 {
		return atLower && k.meetsFrom(i+1, from, to, true, true)
	}
	return atLower && k.meetsFrom(i+1, from, to, true, false) || atUpper && k.meetsFrom(i+1, from, to, false, true)
}

// combinations gives every key of the set, or nil when a column has no list of
// values or there are more than maxCombinations.
func (k keySet) combinations() [][]Value {
	count := 1
	for i := range k {
		if k[i].values == nil {
			return nil
		}
		if count *= len(k[i].values); count > maxCombinations {
			return nil
		}
	}
	keys := make([][]Value, 0, count)
	digits := make([]int, len(k))
	for range count {
		key := make([]Value, len(k))
		for i := range k {
			key[i] = k[i].values[digits[i]]
		}
		keys = append(keys, key)
		for i := len(k) - 1; i >= 0; i-- {
			if digits[i]++; digits[i] < len(k[i].values) {
				break
			}
			digits[i] = 0
		}
	}
	return keys
}

// hashes gives the hash of every key of the set; few is false when they cannot be
// counted out.
func (k keySet) hashes() (hashes []uint64, few bool) {
	keys := k.combinations()
	if keys == nil {
		return nil, false
	}
	hashes = make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = KeyHash(key)
	}
	return hashes, true
}
