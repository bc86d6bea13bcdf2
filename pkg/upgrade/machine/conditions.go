package machine

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// conditions are Ready, Available, Progressing and Stalled, in this order. Each keeps the time of its last change.
func conditions(s Snapshot, d Decision, failures ...Failure) []metav1.Condition {
	now := metav1.NewTime(s.Now.Truncate(time.Second))
	old := s.EMQX.Status.Conditions
	serving := available(s)
	var all []metav1.Condition
	for _, condition := range []metav1.Condition{ready(d, serving, failures), serving, progressing(d), stalled(d)} {
		condition.ObservedGeneration = s.EMQX.Generation
		condition.LastTransitionTime = now
		if before := meta.FindStatusCondition(old, condition.Type); before != nil && before.Status == condition.Status {
			condition.LastTransitionTime = before.LastTransitionTime
		}
		all = append(all, condition)
	}
	return all
}

func condition(kind string, value bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// ready is about all that the specification asks for. What does not serve is not ready.
func ready(d Decision, serving metav1.Condition, failures []Failure) metav1.Condition {
	switch {
	case d.Stalled != nil:
		return condition(v2beta1.ConditionReady, false, d.Stalled.Reason, d.Stalled.Message)
	case len(failures) > 0:
		return condition(v2beta1.ConditionReady, false, "ActionFailed", failures[0].Message)
	case d.Phase != v2beta1.PhaseDone || d.Gone:
		return condition(v2beta1.ConditionReady, false, reasonOr(d.Waiting, string(d.Phase)), waitingFor(d))
	case !d.Waiting.None() && !d.Paused:
		return condition(v2beta1.ConditionReady, false, reasonOr(d.Waiting, nodesNotReady), waitingFor(d))
	case serving.Status != metav1.ConditionTrue:
		return condition(v2beta1.ConditionReady, false, serving.Reason, serving.Message)
	}
	message := "the cluster is as the specification asks"
	if !d.Unknown.None() {
		message += ", as far as is known: " + d.Unknown.Message
	}
	words := []string{message}
	for _, notice := range d.Notices {
		if notice.Reason == fieldHasNoEffect || notice.Reason == reasonInPlace || notice.Reason == keysUnknown {
			words = append(words, notice.Message) // The event that tells of it is gone after an hour.
		}
	}
	return condition(v2beta1.ConditionReady, true, "Done", strings.Join(words, "; "))
}

func waitingFor(d Decision) string {
	if d.Waiting.None() {
		return ""
	}
	return "waiting for " + d.Waiting.Message
}

func reasonOr(lack Lack, otherwise string) string {
	if lack.Reason != "" {
		return lack.Reason
	}
	return otherwise
}

// available is about clients: whether the listeners Service leads to anybody.
func available(s Snapshot) metav1.Condition {
	count := 0
	service, exists := s.Services[resources.Listeners]
	for _, endpoint := range service.Endpoints {
		if endpoint.Ready {
			count++
		}
	}
	if !exists && !resources.ServiceEnabled(s.EMQX, resources.Listeners) {
		for pod := range s.eachPod() {
			if pod.Ready {
				count++
			}
		}
	}
	if count == 0 {
		return condition(v2beta1.ConditionAvailable, false, "NoEndpoints", "no pod takes clients")
	}
	return condition(v2beta1.ConditionAvailable, true, "EndpointsReady", fmt.Sprintf("%d pods take clients", count))
}

func progressing(d Decision) metav1.Condition {
	switch {
	case d.Stalled != nil:
		return condition(v2beta1.ConditionProgressing, false, d.Stalled.Reason, d.Stalled.Message)
	case d.Paused:
		return condition(v2beta1.ConditionProgressing, false, statePaused, waitingFor(d))
	case d.Gone:
		return condition(v2beta1.ConditionProgressing, false, d.Waiting.Reason, waitingFor(d))
	case d.Phase == v2beta1.PhaseDone:
		return condition(v2beta1.ConditionProgressing, false, "Done", "no upgrade is under way")
	}
	return condition(v2beta1.ConditionProgressing, true, reasonOr(d.Waiting, string(d.Phase)), waitingFor(d))
}

func stalled(d Decision) metav1.Condition {
	if d.Stalled != nil {
		return condition(v2beta1.ConditionStalled, true, d.Stalled.Reason, d.Stalled.Message)
	}
	return condition(v2beta1.ConditionStalled, false, "NotStalled", "")
}
