package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// runEndpoints keeps one EndpointSlice a Service, and has clients go where the listeners Service leads.
func (c *Controllers) runEndpoints(ctx context.Context, found *cluster) error {
	var problems []error
	for _, service := range found.services {
		wanted, err := sliceOf(service, found.pods)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		problems = append(problems, c.applySlice(ctx, found, wanted))
		if strings.HasSuffix(service.Name, "-listeners") {
			c.lead(found, wanted)
		}
	}
	for _, slice := range found.slices {
		owned := slices.ContainsFunc(found.services, func(service *corev1.Service) bool { return metav1.IsControlledBy(slice, service) })
		if owned {
			continue
		}
		err := c.config.Kube.DiscoveryV1().EndpointSlices(slice.Namespace).Delete(ctx, slice.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("delete EndpointSlice %s: %w", slice.Name, err))
		}
	}
	return errors.Join(problems...)
}

func (c *Controllers) applySlice(ctx context.Context, found *cluster, wanted *discoveryv1.EndpointSlice) error {
	i := slices.IndexFunc(found.slices, func(slice *discoveryv1.EndpointSlice) bool { return slice.Name == wanted.Name })
	client := c.config.Kube.DiscoveryV1().EndpointSlices(wanted.Namespace)
	var err error
	switch {
	case i < 0:
		if _, err = client.Create(ctx, wanted, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			return nil
		}
	case !equality.Semantic.DeepEqual(found.slices[i].Endpoints, wanted.Endpoints):
		wanted.ResourceVersion = found.slices[i].ResourceVersion
		if _, err = client.Update(ctx, wanted, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("write EndpointSlice %s: %w", wanted.Name, err)
	}
	return nil
}

// sliceOf is the slice of a Service: its pods with an address, by the twins of their loopback addresses, which a slice must not
// hold.
func sliceOf(service *corev1.Service, pods []*corev1.Pod) (*discoveryv1.EndpointSlice, error) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: service.Name + "-slice", Namespace: service.Namespace, Labels: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(service, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	maps.Copy(slice.Labels, service.Labels)
	slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = service.Name, "endpointslice-controller.k8s.io"
	for _, port := range service.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr.To(port.Name), Port: ptr.To(port.Port), Protocol: ptr.To(port.Protocol)})
	}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for _, pod := range pods {
		if pod.Status.PodIP == "" || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		address, err := netip.ParseAddr(pod.Status.PodIP)
		if err == nil {
			address, err = network.FromLoopback(address)
		}
		if err != nil {
			return nil, fmt.Errorf("make the endpoint of pod %s: %w", pod.Name, err)
		}
		terminating := !pod.DeletionTimestamp.IsZero()
		serving := isTrue(pod, corev1.PodReady)
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address.String()},
			Conditions: discoveryv1.EndpointConditions{
				Ready: ptr.To(serving && !terminating || service.Spec.PublishNotReadyAddresses), Serving: ptr.To(serving), Terminating: ptr.To(terminating),
			},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			NodeName:  ptr.To(pod.Spec.NodeName),
		})
	}
	slices.SortFunc(slice.Endpoints, func(a, b discoveryv1.Endpoint) int { return strings.Compare(a.TargetRef.Name, b.TargetRef.Name) })
	return slice, nil
}

// lead tells the fleet where clients go.
func (c *Controllers) lead(found *cluster, slice *discoveryv1.EndpointSlice) {
	var doors []string
	c.mu.Lock()
	for _, endpoint := range slice.Endpoints {
		if k := c.kubelets[found.name][endpoint.TargetRef.UID]; k != nil && k.node != nil && *endpoint.Conditions.Ready {
			doors = append(doors, k.node.Name())
		}
	}
	c.mu.Unlock()
	c.config.Fleet.Cluster(found.name.String()).Lead(doors)
}
