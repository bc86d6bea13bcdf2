package upgrade

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Events are written by the recorder of client-go. It would patch one that repeats itself; ours never do, since each
// tells of another version of the resource.
//
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// event is what is told of a sync, once its status has been written.
type event struct {
	kind, reason, action, message string
}

// Reasons of events that are no phase and no problem.
const (
	reasonHeld    = "EvictionsHeld"
	reasonResumed = "EvictionsResumed"
	reasonPaused  = "Paused"
	reasonResume  = "Unpaused"
	reasonCleared = "Unstalled"
)

// eventsOf tells what changed from one status to the next: one event a transition, with who and why.
func eventsOf(before *v2beta1.EMQX, d Decision, after v2beta1.EMQXStatus) []event {
	var told []event
	old := before.Status
	if old.Phase != d.Phase && d.Why != "" {
		told = append(told, event{corev1.EventTypeNormal, string(d.Phase), "Upgrade", phaseBefore(old.Phase) + " → " + string(d.Phase) + ": " + d.Why})
	}
	wasStalled := stalledReason(old)
	switch {
	case d.Stalled != nil && wasStalled != d.Stalled.Reason:
		told = append(told, event{corev1.EventTypeWarning, d.Stalled.Reason, "Upgrade", d.Stalled.Message})
	case d.Stalled == nil && wasStalled != "":
		told = append(told, event{corev1.EventTypeNormal, reasonCleared, "Upgrade", "the upgrade goes on: " + wasStalled + " is over"})
	}
	told = append(told, holdEvents(old, d, after)...)
	if old.ObservedGeneration != after.ObservedGeneration || old.Phase != d.Phase {
		told = append(told, noticeEvents(d.Notices)...)
	}
	return told
}

// noticeEvents tells all notices of one reason in one event: the recorder takes events of one reason about one version
// of an object for repetitions, and would drop the words of the second.
func noticeEvents(notices []Problem) []event {
	var told []event
	for _, notice := range notices {
		i := slices.IndexFunc(told, func(e event) bool { return e.reason == notice.Reason })
		if i < 0 {
			told = append(told, event{corev1.EventTypeWarning, notice.Reason, "Validate", notice.Message})
			continue
		}
		told[i].message += "; " + notice.Message
	}
	return told
}

func holdEvents(old v2beta1.EMQXStatus, d Decision, after v2beta1.EMQXStatus) []event {
	held := func(u *v2beta1.UpgradeStatus) bool { return u != nil && u.HeldTime != nil }
	paused := func(u *v2beta1.UpgradeStatus) bool { return u != nil && u.PausedTime != nil }
	var told []event
	switch {
	case held(after.Upgrade) && !held(old.Upgrade):
		told = append(told, event{corev1.EventTypeWarning, reasonHeld, "Evacuate", "waiting for " + d.Waiting})
	case !held(after.Upgrade) && held(old.Upgrade) && d.Phase == v2beta1.PhaseEvacuating:
		told = append(told, event{corev1.EventTypeNormal, reasonResumed, "Evacuate", "evicted clients have come back, evictions go on"})
	}
	switch {
	case paused(after.Upgrade) && !paused(old.Upgrade):
		told = append(told, event{corev1.EventTypeNormal, reasonPaused, "Upgrade", "spec.updateStrategy.paused is set: nothing new is started, evacuations are stopped"})
	case !paused(after.Upgrade) && paused(old.Upgrade):
		told = append(told, event{corev1.EventTypeNormal, reasonResume, "Upgrade", "spec.updateStrategy.paused was removed"})
	}
	return told
}

func phaseBefore(phase v2beta1.Phase) string {
	if phase == "" {
		return "New"
	}
	return string(phase)
}

func stalledReason(status v2beta1.EMQXStatus) string {
	for _, condition := range status.Conditions {
		if condition.Type == v2beta1.ConditionStalled && condition.Status == "True" {
			return condition.Reason
		}
	}
	return ""
}

func record(recorder events.EventRecorder, emqx *v2beta1.EMQX, told []event) {
	for _, e := range told {
		recorder.Eventf(emqx, nil, e.kind, e.reason, e.action, "%s", e.message)
	}
}
