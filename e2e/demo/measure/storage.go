package measure

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// Storage asks any node of a cluster for its durable storage.
func Storage(ctx context.Context, target Target) (emqx.Storage, error) {
	resource, err := target.EMQX.AppsV2beta1().EMQXes(target.Namespace).Get(ctx, target.Name, metav1.GetOptions{})
	if err != nil {
		return emqx.Storage{}, fmt.Errorf("read the resource: %w", err)
	}
	pods, err := target.Kube.CoreV1().Pods(target.Namespace).List(ctx, metav1.ListOptions{LabelSelector: v2beta1.LabelInstance + "=" + target.Name})
	if err != nil {
		return emqx.Storage{}, fmt.Errorf("list the pods: %w", err)
	}
	client := emqx.NewClient(nil)
	defer client.Close()
	failure := errors.New("no pod runs")
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
			continue
		}
		address, err := target.State.Reach(pod.Status.PodIP)
		if err != nil {
			return emqx.Storage{}, fmt.Errorf("find the address of pod %s: %w", pod.Name, err)
		}
		var storage emqx.Storage
		err = withCredentials(ctx, target, resource.BootstrapAPIKeySecretName(), func(credentials emqx.Credentials) (err error) {
			storage, err = client.Storage(ctx, emqx.Node{Name: pod.Name, URL: fmt.Sprintf("http://%s:%d", address, apiPort)}, credentials)
			return err
		})
		if err == nil {
			return storage, nil
		}
		failure = err
	}
	return emqx.Storage{}, fmt.Errorf("ask the nodes for their durable storage: %w", failure)
}
