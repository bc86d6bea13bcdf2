package localkube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// checkTimeout bounds one question to one component.
const checkTimeout = 5 * time.Second

// maxAnswerBytes bounds what is read of the agent's answers.
const maxAnswerBytes = 16 << 20

// Status is what a cluster looks like at a moment.
type Status struct {
	Dir         string            `json:"dir"`
	APIServer   string            `json:"apiServer"`
	PodCIDR     string            `json:"podCIDR"`
	ServiceCIDR string            `json:"serviceCIDR"`
	Components  []ComponentStatus `json:"components"`
	// Pods are all pods on the node; empty when the agent cannot be asked.
	Pods []agent.PodInfo `json:"pods"`
	// Healthy says that all components are healthy; pods do not count.
	Healthy bool `json:"healthy"`
	// Problem is the first reason why it is not.
	Problem string `json:"problem,omitempty"`
}

// ComponentStatus is one program of the cluster.
type ComponentStatus struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Health is "ok" or a sentence.
	Health string `json:"health"`
}

// GetStatus asks every part of the cluster how it is. An error means that the directory has no cluster to ask.
func GetStatus(ctx context.Context, dir state.Dir) (*Status, error) {
	s, err := dir.Load()
	if err != nil {
		return nil, err
	}
	health, err := controlplane.NewHealth(dir, s)
	if err != nil {
		return nil, err
	}
	defer health.Close()
	status := &Status{
		Dir: string(dir), APIServer: "https://" + s.Endpoint(s.Ports.APIServer),
		PodCIDR: s.Plan().PodPrefix().String(), ServiceCIDR: s.Plan().ServicePrefix().String(),
		Pods: []agent.PodInfo{}, Healthy: true,
	}
	if bootID, err := proc.BootID(); err == nil && bootID != s.BootID {
		status.fail("the machine was restarted since; `cluster up` starts the cluster afresh")
	}
	for _, name := range controlplane.Names() {
		component := ComponentStatus{Name: name, PID: s.Processes[name].PID, Health: "ok"}
		if problem := componentProblem(ctx, health, s, name); problem != "" {
			component.Health = problem
			status.fail(name + ": " + problem)
		}
		status.Components = append(status.Components, component)
	}
	if status.Pods, err = Pods(ctx, dir, s); err != nil {
		status.fail(err.Error())
	}
	return status, nil
}

func (s *Status) fail(problem string) {
	s.Healthy = false
	if s.Problem == "" {
		s.Problem = problem
	}
}

func componentProblem(ctx context.Context, health *controlplane.Health, s *state.State, name string) string {
	if !s.Processes[name].Alive() {
		return "does not run; `cluster up` starts it again"
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := health.Check(ctx, name); err != nil {
		return err.Error()
	}
	return ""
}

// Pods lists the pods on the node, as its agent knows them.
func Pods(ctx context.Context, dir state.Dir, s *state.State) ([]agent.PodInfo, error) {
	raw, err := askAgent(ctx, dir, s, http.MethodGet, agent.PodsPath, nil)
	if err != nil {
		return nil, err
	}
	var pods []agent.PodInfo
	if err := json.Unmarshal(raw, &pods); err != nil {
		return nil, fmt.Errorf("read the node agent's answer: %w", err)
	}
	return pods, nil
}

// Signal sends STOP, CONT, KILL or TERM to the process group of a pod's container, the first when none is named, and
// returns the group's id.
func Signal(ctx context.Context, dir state.Dir, s *state.State, namespace, pod, container, signal string) (int, error) {
	signal = strings.TrimPrefix(strings.ToUpper(signal), "SIG")
	if _, known := agent.Signals()[signal]; !known {
		return 0, fmt.Errorf("no signal is called %q; use STOP, CONT, KILL or TERM", signal)
	}
	raw, err := askAgent(ctx, dir, s, http.MethodPost, agent.SignalPath, url.Values{
		"namespace": {namespace}, "pod": {pod}, "container": {container}, "signal": {signal},
	})
	if err != nil {
		return 0, err
	}
	group, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("read the node agent's answer: %w", err)
	}
	return group, nil
}

func askAgent(ctx context.Context, dir state.Dir, s *state.State, method, path string, form url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	config, err := controlplane.ClientTLS(dir)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, method, "https://"+s.Endpoint(s.Ports.Kubelet)+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("ask the node agent: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the node agent: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the node agent's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", strings.TrimSpace(string(body)))
	}
	return body, nil
}

// Endpoint returns host:port at which a port of a Service, by name or number, can be reached on this machine.
func Endpoint(ctx context.Context, dir state.Dir, namespace, service, port string) (string, error) {
	s, err := dir.Load()
	if err != nil {
		return "", err
	}
	client, err := Client(dir)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found, err := client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find the Service: %w", err)
	}
	address, err := s.Reach(found.Spec.ClusterIP)
	if err != nil {
		return "", fmt.Errorf("the Service %s/%s has no cluster address; ask for one of its pods", namespace, service)
	}
	var names []string
	for _, p := range found.Spec.Ports {
		if p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return fmt.Sprintf("%s:%d", address, p.Port), nil
		}
		names = append(names, fmt.Sprintf("%s (%d)", p.Name, p.Port))
	}
	return "", fmt.Errorf("the Service %s/%s has no TCP port %q; it has %s", namespace, service, port, strings.Join(names, ", "))
}
