package scenarios

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

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
		// A pod's address leads nowhere; its processes listen on the loopback address beside it.
		address := "127." + strings.TrimPrefix(pod.Status.PodIP, "10.")
		err := eachSample(ctx, "http://"+address+":8080/metrics", "emqx_bg_operator_node_last_seen_timestamp_seconds", func(labels string, value float64) {
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
		rest, ok := strings.CutPrefix(lines.Text(), metric+"{")
		if !ok {
			continue
		}
		labels, number, _ := strings.Cut(rest, "} ")
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return err
		}
		each(labels, value)
	}
	return lines.Err()
}
