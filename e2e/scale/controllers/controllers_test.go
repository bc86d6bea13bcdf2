package controllers

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

func TestAddresses(t *testing.T) {
	prefix := netip.MustParsePrefix("127.9.0.0/23")
	a := addresses{prefix: prefix, next: prefix.Addr()}
	seen := map[netip.Addr]bool{}
	for range 254 {
		address, err := a.take()
		require.NoError(t, err)
		require.True(t, prefix.Contains(address))
		require.Equal(t, byte(1), address.As4()[2], "the first 256 are not the pods'")
		require.False(t, seen[address], "an address is one pod's")
		seen[address] = true
	}
	_, err := a.take()
	require.ErrorContains(t, err, "all are in use")
	given := netip.MustParseAddr("127.9.1.7")
	a.give(given)
	again, err := a.take()
	require.NoError(t, err)
	require.Equal(t, given, again)
}

// TestSlices has a Service lead to the pods that it selects: the ready ones, by the twins of their addresses.
func TestSlices(t *testing.T) {
	pod := func(name, address string, ready corev1.ConditionStatus, deleting bool) *corev1.Pod {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"a": "b"}},
			Status:     corev1.PodStatus{PodIP: address, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
		if deleting {
			pod.DeletionTimestamp = &metav1.Time{}
			*pod.DeletionTimestamp = metav1.Now()
		}
		return pod
	}
	other := pod("other", "127.9.1.9", corev1.ConditionTrue, false)
	other.Labels = nil
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "x-listeners", UID: "s", Labels: map[string]string{v2beta1.LabelInstance: "x"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Name: "mqtt", Port: 1883}}},
	}
	slice, err := sliceOf(service, []*corev1.Pod{
		pod("x-1", "127.9.1.2", corev1.ConditionFalse, false), pod("x-0", "127.9.1.1", corev1.ConditionTrue, false), other,
		pod("x-2", "127.9.1.3", corev1.ConditionTrue, true), pod("x-3", "", corev1.ConditionFalse, false),
	})
	require.NoError(t, err)
	require.True(t, metav1.IsControlledBy(slice, service))
	require.Equal(t, "x", slice.Labels[v2beta1.LabelInstance], "the labels of the Service are the slice's, too")
	var told []string
	for _, endpoint := range slice.Endpoints {
		state := "not ready"
		if *endpoint.Conditions.Ready {
			state = "ready"
		}
		told = append(told, endpoint.TargetRef.Name+" "+endpoint.Addresses[0]+" "+state)
	}
	require.Equal(t, []string{"x-0 10.9.1.1 ready", "x-1 10.9.1.2 not ready", "x-2 10.9.1.3 not ready"}, told)

	service.Spec.PublishNotReadyAddresses = true
	slice, err = sliceOf(service, []*corev1.Pod{pod("x-1", "127.9.1.2", corev1.ConditionFalse, false)})
	require.NoError(t, err)
	require.True(t, *slice.Endpoints[0].Conditions.Ready, "nodes find each other before they are ready")

	_, err = sliceOf(service, []*corev1.Pod{pod("x-1", "192.0.2.1", corev1.ConditionFalse, false)})
	require.ErrorContains(t, err, "x-1")
}
