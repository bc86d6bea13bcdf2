package podstatus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podstatus"
)

// containers builds statuses from letters: w waiting, r running, R running and ready, c completed, f failed,
// b waiting to be restarted after a failure.
func containers(letters string) []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for _, letter := range letters {
		status := corev1.ContainerStatus{Name: string(letter)}
		failed := &corev1.ContainerStateTerminated{ExitCode: 1}
		switch letter {
		case 'w':
			status.State.Waiting = &corev1.ContainerStateWaiting{}
		case 'r', 'R':
			status.State.Running = &corev1.ContainerStateRunning{}
			status.Ready = letter == 'R'
		case 'c':
			status.State.Terminated = &corev1.ContainerStateTerminated{}
		case 'f':
			status.State.Terminated = failed
		case 'b':
			status.State.Waiting = &corev1.ContainerStateWaiting{}
			status.LastTerminationState.Terminated = failed
		}
		list = append(list, status)
	}
	return list
}

func TestPhase(t *testing.T) {
	const always, never, onFailure = corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure
	for _, c := range []struct {
		reason     string
		policy     corev1.RestartPolicy
		init, main string
		ended      bool
		former     corev1.PodPhase
		want       corev1.PodPhase
	}{
		{reason: "nothing started", policy: always, main: "ww", want: corev1.PodPending},
		{reason: "one of two started", policy: always, main: "rw", want: corev1.PodPending},
		{reason: "all run", policy: always, main: "rr", want: corev1.PodRunning},
		{reason: "one waits for a restart", policy: always, main: "rb", want: corev1.PodRunning},
		{reason: "the only one waits for a restart", policy: always, main: "b", want: corev1.PodRunning},
		{reason: "ended, and will be started again", policy: always, main: "c", want: corev1.PodRunning},
		{reason: "ended well for good", policy: never, main: "cc", want: corev1.PodSucceeded},
		{reason: "one failed for good", policy: never, main: "cf", want: corev1.PodFailed},
		{reason: "one failed, one runs", policy: never, main: "rf", want: corev1.PodRunning},
		{reason: "failed, and will be started again", policy: onFailure, main: "f", want: corev1.PodRunning},
		{reason: "done", policy: onFailure, main: "c", want: corev1.PodSucceeded},
		{reason: "init runs", policy: always, init: "cr", main: "w", want: corev1.PodPending},
		{reason: "init failed and is retried", policy: always, init: "f", main: "w", want: corev1.PodPending},
		{reason: "init failed for good", policy: never, init: "f", main: "w", want: corev1.PodFailed},
		{reason: "init done", policy: always, init: "cc", main: "r", want: corev1.PodRunning},
		{reason: "deleted, all ended well", policy: always, main: "c", ended: true, want: corev1.PodSucceeded},
		{reason: "deleted, one killed", policy: always, main: "cf", ended: true, want: corev1.PodFailed},
		{reason: "deleted before it started", policy: always, main: "w", ended: true, want: corev1.PodFailed},
		{reason: "what has ended stays so", policy: never, main: "w", former: corev1.PodSucceeded, want: corev1.PodSucceeded},
	} {
		t.Run(c.reason, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: c.policy}, Status: corev1.PodStatus{Phase: c.former}}
			require.Equal(t, c.want, podstatus.Phase(podstatus.Input{
				Pod: pod, Init: containers(c.init), Containers: containers(c.main), Ended: c.ended,
			}))
		})
	}
}

func condition(t *testing.T, status corev1.PodStatus, kind corev1.PodConditionType) corev1.PodCondition {
	t.Helper()
	for _, condition := range status.Conditions {
		if condition.Type == kind {
			return condition
		}
	}
	require.Fail(t, "no condition", "%s", kind)
	return corev1.PodCondition{}
}

func TestReady(t *testing.T) {
	const gate = "apps.emqx.io/on-serving"
	for _, c := range []struct {
		reason              string
		init, main          string
		gates               []string
		conditions          []corev1.PodCondition
		ready, initialized  corev1.ConditionStatus
		wantReason, message string
	}{
		{reason: "all ready", main: "RR", ready: corev1.ConditionTrue, initialized: corev1.ConditionTrue},
		{reason: "one is not", main: "Rr", ready: corev1.ConditionFalse, initialized: corev1.ConditionTrue,
			wantReason: "ContainersNotReady", message: "containers with unready status: [r]"},
		{reason: "init is not done", init: "cw", main: "w", ready: corev1.ConditionFalse, initialized: corev1.ConditionFalse,
			wantReason: "ContainersNotReady", message: "containers with unready status: [w]"},
		{reason: "completed", main: "c", ready: corev1.ConditionFalse, initialized: corev1.ConditionTrue, wantReason: "PodCompleted"},
		{reason: "a gate without condition", main: "R", gates: []string{gate}, ready: corev1.ConditionFalse, initialized: corev1.ConditionTrue,
			wantReason: "ReadinessGatesNotReady", message: `corresponding condition of pod readiness gate "apps.emqx.io/on-serving" does not exist.`},
		{reason: "a gate that is closed", main: "R", gates: []string{gate}, ready: corev1.ConditionFalse, initialized: corev1.ConditionTrue,
			conditions: []corev1.PodCondition{{Type: gate, Status: corev1.ConditionFalse}},
			wantReason: "ReadinessGatesNotReady", message: `the status of pod readiness gate "apps.emqx.io/on-serving" is not "True", but False`},
		{reason: "a gate that is open", main: "R", gates: []string{gate}, ready: corev1.ConditionTrue, initialized: corev1.ConditionTrue,
			conditions: []corev1.PodCondition{{Type: gate, Status: corev1.ConditionTrue}}},
		{reason: "an open gate does not make containers ready", main: "r", gates: []string{gate}, ready: corev1.ConditionFalse, initialized: corev1.ConditionTrue,
			conditions: []corev1.PodCondition{{Type: gate, Status: corev1.ConditionTrue}},
			wantReason: "ContainersNotReady", message: "containers with unready status: [r]"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}, Status: corev1.PodStatus{Conditions: c.conditions}}
			for _, name := range c.gates {
				pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: corev1.PodConditionType(name)})
			}
			status := podstatus.Compute(podstatus.Input{Pod: pod, Init: containers(c.init), Containers: containers(c.main)})
			ready := condition(t, status, corev1.PodReady)
			require.Equal(t, c.ready, ready.Status)
			require.Equal(t, c.wantReason, ready.Reason)
			require.Equal(t, c.message, ready.Message)
			require.Equal(t, c.initialized, condition(t, status, corev1.PodInitialized).Status)
			for _, owned := range status.Conditions {
				require.NotEqual(t, corev1.PodConditionType(gate), owned.Type, "conditions of others are not ours to write")
			}
		})
	}
}

func TestTransitionTimesChangeWithTheStatusOnly(t *testing.T) {
	before, now := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	in := podstatus.Input{Pod: &corev1.Pod{}, Containers: containers("r"), Now: before, Sandbox: true}
	first := podstatus.Compute(in)
	in.Now, in.Previous, in.Containers = now, first.Conditions, containers("R")
	second := podstatus.Compute(in)
	require.Equal(t, now, condition(t, second, corev1.PodReady).LastTransitionTime)
	require.Equal(t, before, condition(t, second, corev1.PodInitialized).LastTransitionTime)
	require.Equal(t, before, condition(t, second, corev1.PodReadyToStartContainers).LastTransitionTime)
}

func TestShouldRestart(t *testing.T) {
	for _, c := range []struct {
		policy corev1.RestartPolicy
		init   bool
		code   int32
		want   bool
	}{
		{corev1.RestartPolicyAlways, false, 0, true},
		{corev1.RestartPolicyAlways, false, 1, true},
		{corev1.RestartPolicyAlways, true, 0, false},
		{corev1.RestartPolicyAlways, true, 1, true},
		{corev1.RestartPolicyOnFailure, false, 0, false},
		{corev1.RestartPolicyOnFailure, true, 1, true},
		{corev1.RestartPolicyNever, false, 1, false},
		{corev1.RestartPolicyNever, true, 1, false},
	} {
		require.Equal(t, c.want, podstatus.ShouldRestart(c.policy, c.init, c.code), "%+v", c)
	}
}
