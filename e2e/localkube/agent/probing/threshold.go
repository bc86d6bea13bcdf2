package probing

import corev1 "k8s.io/api/core/v1"

// Kind is one of the three probes of a container.
type Kind string

// The kinds of probes, in the words of events.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Verdict is what a probe's results amount to.
type Verdict string

// The verdicts. A startup probe begins Undecided, a readiness probe Failing and a liveness probe Passing.
const (
	Undecided Verdict = "Undecided"
	Passing   Verdict = "Passing"
	Failing   Verdict = "Failing"
)

// Threshold turns results into verdicts: so many in a row change the mind.
type Threshold struct {
	verdict              Verdict
	successes, failures  int32
	lastSuccess, counted bool
	run                  int32
}

// NewThreshold returns the state of a probe before its first result.
func NewThreshold(kind Kind, probe *corev1.Probe) *Threshold {
	t := &Threshold{successes: max(probe.SuccessThreshold, 1), failures: max(probe.FailureThreshold, 1)}
	switch kind {
	case Startup:
		t.verdict = Undecided
	case Readiness:
		t.verdict = Failing
	case Liveness:
		t.verdict = Passing
	}
	return t
}

// Observe counts a result and returns the verdict. reached is true when this result confirms or changes the verdict
// because enough of its kind have come in a row.
func (t *Threshold) Observe(success bool) (verdict Verdict, reached bool) {
	if t.counted && t.lastSuccess == success {
		t.run++
	} else {
		t.run = 1
	}
	t.counted, t.lastSuccess = true, success
	switch {
	case success && t.run >= t.successes:
		t.verdict, reached = Passing, true
	case !success && t.run >= t.failures:
		t.verdict, reached = Failing, true
	}
	return t.verdict, reached
}
