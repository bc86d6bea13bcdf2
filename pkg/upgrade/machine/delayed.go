package machine

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Messages to $delayed/... are on the node where they came in, and on no other, until they are due. EMQX does not move them, so that
// an upgrade loses those that are not due when their node goes. Nothing waits for that, which may take weeks: it is told.

// delayedMessages is how many the leaving nodes have, as far as these have told it.
func delayedMessages(s Snapshot) int64 {
	var left int64
	for _, pod := range s.leavingPods() {
		left += s.node(pod).Delayed.Value
	}
	return left
}

// delayedEvents tell of them as soon as there are any.
func delayedEvents(old, after v2beta1.EMQXStatus) []Event {
	left := upgradeIn(after).DelayedMessages
	if left == 0 || upgradeIn(old).DelayedMessages > 0 {
		return nil
	}
	return []Event{{corev1.EventTypeWarning, "DelayedMessagesLeft", "Evacuate", fmt.Sprintf("%d delayed messages ($delayed/...) are on nodes that leave, and EMQX moves none: "+
		"those that are not due when these go are lost; spec.updateStrategy.paused holds that off", left)}}
}
