package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	testingclock "k8s.io/utils/clock/testing"
)

func TestCrashBackOffDoublesAndIsForgotten(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Unix(1_000_000, 0))
	recorder := record.NewFakeRecorder(100)
	w := &worker{
		deps: &deps{crash: flowcontrol.NewFakeBackOff(backOffFirst, backOffMost, clock), recorder: recorder},
		pod:  &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop", UID: "u"}},
	}
	c := &container{spec: &corev1.Container{Name: "main"}}
	// crash lets the container run for a while, and returns how long it is held back after it has ended.
	crash := func(runs time.Duration) time.Duration {
		clock.Step(runs)
		c.waiting, c.ended, w.wakeAt = nil, clock.Now(), time.Time{}
		if !w.inCrashBackOff(c) {
			w.crash.Next(c.key(w.pod), c.ended)
			return 0
		}
		held := w.wakeAt.Sub(clock.Now())
		clock.SetTime(w.wakeAt)
		require.False(t, w.inCrashBackOff(c), "when it is over, it is over")
		w.crash.Next(c.key(w.pod), c.ended)
		return held
	}
	var held []time.Duration
	for range 8 {
		held = append(held, crash(time.Second))
	}
	require.Equal(t, []time.Duration{
		0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second,
	}, held)
	require.Equal(t, 300*time.Second, crash(5*time.Minute), "well for five minutes is not long enough")
	require.Zero(t, crash(11*time.Minute), "well for ten minutes is")
	require.Equal(t, 10*time.Second, crash(time.Second))

	clock.Step(time.Second)
	c.waiting, c.ended = nil, clock.Now()
	require.True(t, w.inCrashBackOff(c))
	require.Equal(t, &corev1.ContainerStateWaiting{
		Reason: "CrashLoopBackOff", Message: "back-off 20s restarting failed container=main pod=web-0_shop(u)",
	}, c.waiting)
	require.Contains(t, <-recorder.Events, "Warning BackOff Back-off restarting failed container main in pod web-0_shop(u)")
}

func TestContainerStatusAfterARestartOfTheAgent(t *testing.T) {
	now := time.Unix(2_000_000, 0)
	ended := &corev1.ContainerStateTerminated{ExitCode: 1, FinishedAt: metav1.NewTime(now.Add(-time.Hour))}
	for _, c := range []struct {
		reason   string
		status   corev1.ContainerStatus
		exitCode int32
		previous *corev1.ContainerStateTerminated
		launched bool
	}{
		{reason: "it never ran", status: corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}},
		{reason: "it ran: it was lost", exitCode: 137, previous: ended, launched: true, status: corev1.ContainerStatus{
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, LastTerminationState: corev1.ContainerState{Terminated: ended},
		}},
		{reason: "it waited for a restart", exitCode: 1, launched: true, status: corev1.ContainerStatus{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}, LastTerminationState: corev1.ContainerState{Terminated: ended},
		}},
		{reason: "it had ended", exitCode: 1, launched: true, status: corev1.ContainerStatus{State: corev1.ContainerState{Terminated: ended}}},
	} {
		t.Run(c.reason, func(t *testing.T) {
			c.status.RestartCount = 4
			got := &container{spec: &corev1.Container{Name: "main"}}
			got.restore(&c.status, now)
			require.Equal(t, c.launched, got.launched)
			require.Equal(t, int32(4), got.restarts)
			require.Equal(t, c.previous, got.previous)
			if c.launched {
				require.Equal(t, c.exitCode, got.terminated.ExitCode)
				status := got.status(false)
				require.NotNil(t, status.State.Terminated)
				require.False(t, status.Ready)
			}
		})
	}
}

func TestAddressPool(t *testing.T) {
	pool := newAddressPool(netip.MustParsePrefix("10.100.0.0/16"))
	first, err := pool.take("")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.16", first.String())
	pool.startAfter("10.100.0.30")
	second, err := pool.take("")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.31", second.String(), "new pods get none of the addresses of pods from before")
	former, err := pool.take("10.100.0.30")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.30", former.String(), "which those take again")
	other, err := pool.take("10.100.0.30")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.32", other.String(), "but not two at a time")
	foreign, err := pool.take("10.7.0.1")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.33", foreign.String())

	pool.release(first)
	next, err := pool.take("")
	require.NoError(t, err)
	require.Equal(t, "10.100.0.34", next.String(), "a released address is not used again soon")

	small := newAddressPool(netip.MustParsePrefix("10.100.7.0/24"))
	seen := map[netip.Addr]bool{}
	for range 255 - firstPodHost {
		address, err := small.take("")
		require.NoError(t, err)
		require.False(t, seen[address])
		seen[address] = true
	}
	_, err = small.take("")
	require.ErrorContains(t, err, "no free address")
}

func TestRefersTo(t *testing.T) {
	reference := corev1.LocalObjectReference{Name: "it"}
	pod := func(spec corev1.PodSpec) *corev1.Pod { return &corev1.Pod{Spec: spec} }
	env := func(source corev1.EnvVarSource) corev1.PodSpec {
		return corev1.PodSpec{Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "X", ValueFrom: &source}}}}}
	}
	volume := func(source corev1.VolumeSource) corev1.PodSpec {
		return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: source}}}
	}
	for _, c := range []struct {
		reason            string
		spec              corev1.PodSpec
		secret, configMap bool
	}{
		{reason: "nothing", spec: corev1.PodSpec{}},
		{reason: "a variable from a Secret", secret: true,
			spec: env(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: reference}})},
		{reason: "a variable from a ConfigMap", configMap: true,
			spec: env(corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: reference}})},
		{reason: "a variable from a field", spec: env(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}})},
		{reason: "all variables of a Secret, in an init container", secret: true, spec: corev1.PodSpec{InitContainers: []corev1.Container{
			{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: reference}}}},
		}}},
		{reason: "a volume of a Secret", secret: true, spec: volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "it"}})},
		{reason: "a volume of a ConfigMap", configMap: true,
			spec: volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: reference}})},
		{reason: "a projected ConfigMap", configMap: true, spec: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: reference}}},
		}})},
	} {
		t.Run(c.reason, func(t *testing.T) {
			meta := metav1.ObjectMeta{Name: "it"}
			require.Equal(t, c.secret, refersTo(pod(c.spec), &corev1.Secret{ObjectMeta: meta}))
			require.Equal(t, c.configMap, refersTo(pod(c.spec), &corev1.ConfigMap{ObjectMeta: meta}))
		})
	}
}
