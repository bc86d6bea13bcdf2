package measure

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// Where the operator is.
const (
	OperatorNamespace = "emqx-bg-operator-system"
	MetricsPort       = 8080
)

const (
	operatorSelector = "app.kubernetes.io/name=emqx-bg-operator"
	operatorUsers    = "system:serviceaccount:" + OperatorNamespace + ":"
	requestsMetric   = "emqx_bg_operator_emqx_requests_total"
	maxMetricsBytes  = 16 << 20
)

// RequestCount is how often something was asked.
type RequestCount struct {
	// Verb and Resource say what was asked of kube-apiserver; of EMQX, Verb is the operation.
	Verb     string `json:"verb"`
	Resource string `json:"resource,omitempty"`
	Count    int    `json:"count"`
}

// auditEvent is what is read of a line of the audit log.
type auditEvent struct {
	AuditID string `json:"auditID"`
	Verb    string `json:"verb"`
	User    struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	RequestURI string    `json:"requestURI"`
	Received   time.Time `json:"requestReceivedTimestamp"`
}

// kubeRequests counts the operator's requests to kube-apiserver between two times, by verb and resource.
func kubeRequests(dir state.Dir, begin, end time.Time) ([]RequestCount, error) {
	logs, err := filepath.Glob(dir.Path("audit*.log"))
	if err != nil {
		return nil, fmt.Errorf("find the audit log: %w", err)
	}
	counts, seen := map[RequestCount]int{}, map[string]bool{}
	for _, log := range logs {
		err := eachAuditEvent(log, func(event *auditEvent) {
			if !strings.HasPrefix(event.User.Username, operatorUsers) || event.Received.Before(begin) || event.Received.After(end) || seen[event.AuditID] {
				return
			}
			seen[event.AuditID] = true
			resource := event.ObjectRef.Resource
			if event.ObjectRef.Subresource != "" {
				resource += "/" + event.ObjectRef.Subresource
			}
			if resource == "" {
				resource, _, _ = strings.Cut(event.RequestURI, "?")
			}
			counts[RequestCount{Verb: event.Verb, Resource: resource}]++
		})
		if err != nil {
			return nil, fmt.Errorf("read the audit log %s: %w", log, err)
		}
	}
	return sorted(counts), nil
}

func eachAuditEvent(path string, use func(*auditEvent)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // What has no end of line is still being written.
		}
		if err != nil {
			return err
		}
		var event auditEvent
		if err := json.Unmarshal(line, &event); err != nil {
			return err
		}
		use(&event)
	}
}

// sorted puts the most frequent first.
func sorted(counts map[RequestCount]int) []RequestCount {
	list := make([]RequestCount, 0, len(counts))
	for request, count := range counts {
		request.Count = count
		list = append(list, request)
	}
	slices.SortFunc(list, func(a, b RequestCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Resource, b.Resource))
	})
	return list
}

// emqxRequests counts what the operator's pods have asked EMQX since they started, by pod and operation. Only the
// leader asks, but who leads may change.
func emqxRequests(ctx context.Context, target Target) (map[string]map[string]int, error) {
	pods, err := target.Kube.CoreV1().Pods(OperatorNamespace).List(ctx, metav1.ListOptions{LabelSelector: operatorSelector})
	if err != nil {
		return nil, fmt.Errorf("find the operator's pods: %w", err)
	}
	counts := map[string]map[string]int{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		address, err := target.State.Reach(pod.Status.PodIP)
		if err != nil {
			continue // It has not started.
		}
		counts[pod.Name], err = scrapeRequests(ctx, fmt.Sprintf("http://%s:%d/metrics", address, MetricsPort))
		if err != nil {
			return nil, fmt.Errorf("scrape pod %s: %w", pod.Name, err)
		}
	}
	return counts, nil
}

func scrapeRequests(ctx context.Context, url string) (map[string]int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := plainHTTP().Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(response.Body, maxMetricsBytes))
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", url, err)
	}
	counts := map[string]int{}
	for _, metric := range families[requestsMetric].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "operation" {
				counts[label.GetValue()] += int(metric.GetCounter().GetValue())
			}
		}
	}
	return counts, nil
}

// difference counts what came between two scrapes. A pod that was restarted counts from zero.
func difference(before, after map[string]map[string]int) []RequestCount {
	counts := map[RequestCount]int{}
	for pod, operations := range after {
		for operation, count := range operations {
			if earlier := before[pod][operation]; count >= earlier {
				count -= earlier
			}
			if count > 0 {
				counts[RequestCount{Verb: operation}] += count
			}
		}
	}
	return sorted(counts)
}
