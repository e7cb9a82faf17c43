package report

import "govah/measure"

// Entry is one measured target with its verdict, which is never nil.
// Measurement may be nil where only the verdict is known.
type Entry struct {
	Measurement *measure.Measurement
	Verdict     *measure.Verdict
}
