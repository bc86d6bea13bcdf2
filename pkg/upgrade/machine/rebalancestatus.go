package machine

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// What is told of a Rebalance: its status, with the three conditions that emqx-operator knows, and events.

// rewordAfter is how long other words for the same wait.
const rewordAfter = time.Minute

// toldOf writes what a person learns of a Rebalance; nil when that stands already.
func toldOf(now time.Time, r *v2beta1.Rebalance, phase v2beta1.RebalancePhase, lack Lack, states []v2beta1.RebalanceState) Action {
	at := metav1.NewTime(now.Truncate(time.Second))
	status := v2beta1.RebalanceStatus{Phase: phase, RebalanceStates: states, StartedTime: r.Status.StartedTime, Conditions: rebalanceConditions(at, r, phase, lack)}
	if status.StartedTime == nil && len(states) > 0 {
		status.StartedTime = &at
	}
	if phase != v2beta1.RebalanceProcessing {
		status.CompletedTime = &at
	}
	if equality.Semantic.DeepEqual(status, r.Status) {
		return nil
	}
	return TellRebalance{RebalanceRef: refOf(r), Status: status, Events: rebalanceEvents(r, phase, lack)}
}

// rebalanceConditions are the three, of which that of the phase is True. One that says the same as before is as before.
func rebalanceConditions(now metav1.Time, r *v2beta1.Rebalance, phase v2beta1.RebalancePhase, lack Lack) []v2beta1.RebalanceCondition {
	var all []v2beta1.RebalanceCondition
	for _, kind := range []v2beta1.RebalancePhase{v2beta1.RebalanceProcessing, v2beta1.RebalanceCompleted, v2beta1.RebalanceFailed} {
		is := v2beta1.RebalanceCondition{Type: kind, Status: metav1.ConditionFalse, Reason: string(phase), LastUpdateTime: now, LastTransitionTime: now}
		if kind == phase {
			is.Status, is.Reason, is.Message = metav1.ConditionTrue, lack.Reason, lack.Message
		}
		if was := rebalanceCondition(r, kind); was != nil && was.Status == is.Status {
			is.LastTransitionTime = was.LastTransitionTime
			if was.Reason == is.Reason && (was.Message == is.Message || now.Sub(was.LastUpdateTime.Time) < rewordAfter) {
				is = *was
			}
		}
		all = append(all, is)
	}
	return all
}

// rebalanceCondition is a condition of a Rebalance; nil when it has none of this type.
func rebalanceCondition(r *v2beta1.Rebalance, kind v2beta1.RebalancePhase) *v2beta1.RebalanceCondition {
	if i := slices.IndexFunc(r.Status.Conditions, func(c v2beta1.RebalanceCondition) bool { return c.Type == kind }); i >= 0 {
		return &r.Status.Conditions[i]
	}
	return nil
}

// rebalanceEvents tell that a Rebalance does, or waits for, something else than before.
func rebalanceEvents(r *v2beta1.Rebalance, phase v2beta1.RebalancePhase, lack Lack) []Event {
	kind, reason := corev1.EventTypeNormal, lack.Reason
	if was := rebalanceCondition(r, phase); lack.Reason == rebalanceStarts || was != nil && was.Status == metav1.ConditionTrue && was.Reason == lack.Reason {
		return nil
	}
	switch phase {
	case v2beta1.RebalanceCompleted:
		reason = string(phase)
	case v2beta1.RebalanceFailed:
		kind, reason = corev1.EventTypeWarning, string(phase)
	case v2beta1.RebalanceProcessing:
	}
	return []Event{{kind, reason, "Rebalance", lack.Message}}
}
