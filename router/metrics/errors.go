package metrics

import "sync/atomic"

// classes are the first two characters of the SQLSTATEs that Postgres and the router use. Others, which functions can
// make up, count together.
var classes = [...]string{
	"01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26", "27", "28", "2B", "2D",
	"2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
}

// OtherClass is the label of every class that is not one of Postgres's.
const OtherClass = "other"

// Errors counts errors by the class of their SQLSTATE. It is safe for concurrent use; the zero value is empty.
type Errors struct {
	counts [len(classes) + 1]atomic.Uint64
}

// Count counts one error.
func (e *Errors) Count(sqlstate string) {
	at := len(classes)
	if len(sqlstate) >= 2 {
		for i, class := range classes {
			if class == sqlstate[:2] {
				at = i
				break
			}
		}
	}
	e.counts[at].Add(1)
}

// Each calls yield for each class of which there were errors.
func (e *Errors) Each(yield func(class string, count uint64) bool) {
	for i := range e.counts {
		n := e.counts[i].Load()
		if n == 0 {
			continue
		}
		class := OtherClass
		if i < len(classes) {
			class = classes[i]
		}
		if !yield(class, n) {
			return
		}
	}
}
