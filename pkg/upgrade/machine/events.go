package machine

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Event is what is told of a sync, once its status has been written.
type Event struct {
	// Type is Normal or Warning.
	Type string
	// Reason is a CamelCase word, Action what the operator was about, Message the words for people.
	Reason, Action, Message string
}

// Reasons of events that are no phase and no problem.
const (
	reasonHeld    = "EvictionsHeld"
	reasonResumed = "EvictionsResumed"
	reasonPaused  = "Paused"
	reasonResume  = "Unpaused"
	reasonCleared = "Unstalled"
)

// EventsOf tells what changed from one status to the next: one event a transition, with who and why.
func EventsOf(before *v2beta1.EMQX, d Decision, after v2beta1.EMQXStatus) []Event {
	var told []Event
	old := before.Status
	if old.Phase != d.Phase && d.Why != "" {
		told = append(told, Event{corev1.EventTypeNormal, string(d.Phase), "Upgrade", phaseBefore(old.Phase) + " → " + string(d.Phase) + ": " + d.Why})
	}
	was, is := StalledReason(old), meta.FindStatusCondition(after.Conditions, v2beta1.ConditionStalled)
	switch {
	case is != nil && is.Status == metav1.ConditionTrue && was != is.Reason:
		told = append(told, Event{corev1.EventTypeWarning, is.Reason, "Upgrade", is.Message})
	case was != "" && StalledReason(after) == "":
		told = append(told, Event{corev1.EventTypeNormal, reasonCleared, "Upgrade", "the upgrade goes on: " + was + " is over"})
	}
	told = append(told, holdEvents(old, d, after)...)
	told = append(told, drainEvents(old, after)...)
	told = append(told, byHandEvents(old, after)...)
	told = append(told, delayedEvents(old, after)...)
	if entered := old.Phase != d.Phase && d.Phase == v2beta1.PhaseDone; entered || old.ObservedGeneration != after.ObservedGeneration {
		told = append(told, noticeEvents(d.Notices)...)
	}
	return told
}

// noticeEvents tells all notices of one reason in one event: the recorder takes events of one reason about one version
// of an object for repetitions, and would drop the words of the second.
func noticeEvents(notices []Lack) []Event {
	var told []Event
	for _, notice := range notices {
		i := slices.IndexFunc(told, func(e Event) bool { return e.Reason == notice.Reason })
		if i < 0 {
			told = append(told, Event{corev1.EventTypeWarning, notice.Reason, "Validate", notice.Message})
			continue
		}
		told[i].Message += "; " + notice.Message
	}
	return told
}

func holdEvents(old v2beta1.EMQXStatus, d Decision, after v2beta1.EMQXStatus) []Event {
	held := func(u *v2beta1.UpgradeStatus) bool { return u != nil && u.HeldTime != nil }
	paused := func(u *v2beta1.UpgradeStatus) bool { return u != nil && u.PausedTime != nil }
	var told []Event
	switch {
	case held(after.Upgrade) && !held(old.Upgrade):
		told = append(told, Event{corev1.EventTypeWarning, reasonHeld, "Evacuate", "waiting for " + d.Waiting.Message})
	case !held(after.Upgrade) && held(old.Upgrade) && !d.Paused:
		told = append(told, Event{corev1.EventTypeNormal, reasonResumed, "Evacuate", "evictions go on: " + old.Upgrade.HeldReason + " is over"})
	}
	switch {
	case paused(after.Upgrade) && !paused(old.Upgrade):
		told = append(told, Event{corev1.EventTypeNormal, reasonPaused, "Upgrade", "spec.updateStrategy.paused is set: nothing new is started, evacuations are stopped"})
	case !paused(after.Upgrade) && paused(old.Upgrade):
		told = append(told, Event{corev1.EventTypeNormal, reasonResume, "Upgrade", "spec.updateStrategy.paused was removed"})
	}
	return told
}

func phaseBefore(phase v2beta1.Phase) string {
	if phase == "" {
		return "New"
	}
	return string(phase)
}

// StalledReason is why a status calls the cluster stalled; empty when it does not.
func StalledReason(status v2beta1.EMQXStatus) string {
	if stalled := meta.FindStatusCondition(status.Conditions, v2beta1.ConditionStalled); stalled != nil && stalled.Status == metav1.ConditionTrue {
		return stalled.Reason
	}
	return ""
}
