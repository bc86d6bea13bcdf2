package upgrades

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
)

// ageOfView is the age of the operator's oldest view of a node that is not frozen, by the metric of the leading replica.
func ageOfView(ctx context.Context, e demo.Environment, frozen []string) (time.Duration, error) {
	pods, err := e.Kube.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	now, oldest, found := time.Now(), time.Duration(0), false
	for _, pod := range pods.Items {
		err := eachSample(ctx, metricsOf(pod), "emqx_bg_operator_node_last_seen_timestamp_seconds", func(labels string, value float64) {
			for _, name := range frozen {
				if strings.Contains(labels, "emqx@"+name+".") {
					return
				}
			}
			found = true
			oldest = max(oldest, now.Sub(time.UnixMilli(int64(value*1000))))
		})
		if err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, errors.New("no replica of the operator tells when it saw a node")
	}
	return oldest, nil
}

// metricsOf is where a pod tells its metrics. Its address leads nowhere; its processes listen on the loopback address beside it.
func metricsOf(pod corev1.Pod) string {
	return "http://127." + strings.TrimPrefix(pod.Status.PodIP, "10.") + ":8080/metrics"
}

// writesOf is how often the operator has written to Kubernetes: actions that succeeded, and statuses.
func writesOf(ctx context.Context, e demo.Environment) (int64, error) {
	pods, err := e.Kube.CoreV1().Pods(operatorNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	var writes int64
	for _, pod := range pods.Items {
		for _, metric := range []string{"emqx_bg_operator_actions_total", "emqx_bg_operator_status_writes_total"} {
			if err := eachSample(ctx, metricsOf(pod), metric, func(labels string, value float64) {
				if !strings.Contains(labels, `result="error"`) {
					writes += int64(value)
				}
			}); err != nil {
				return 0, err
			}
		}
	}
	return writes, nil
}

// eachSample reads the samples of a metric in the text format.
func eachSample(ctx context.Context, url, metric string, each func(labels string, value float64)) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), metric)
		labels, number, labelled := strings.Cut(strings.TrimPrefix(rest, "{"), "} ")
		if !labelled {
			labels, number = "", strings.TrimPrefix(rest, " ")
		}
		if !ok || rest == number {
			continue
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return err
		}
		each(labels, value)
	}
	return lines.Err()
}
