package localkube_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

func loopbackOf(t *testing.T, address string) string {
	t.Helper()
	loopback, err := network.LoopbackOf(address)
	require.NoError(t, err)
	return loopback.String()
}

// fetch asks the server in a pod.
func (f *fixture) fetch(t *testing.T, pod *corev1.Pod, method, path string) (string, error) {
	t.Helper()
	return fetch(t, method, "http://"+loopbackOf(t, pod.Status.PodIP)+":8080"+path)
}

func fetch(t *testing.T, method, address string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	require.NoError(t, err)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

func (f *fixture) get(t *testing.T, pod *corev1.Pod, path string) string {
	t.Helper()
	var body string
	eventually(t, "an answer to "+path, func() string {
		var err error
		body, err = f.fetch(t, pod, http.MethodGet, path)
		return text(err)
	})
	return body
}

func (f *fixture) post(t *testing.T, pod *corev1.Pod, path string) {
	t.Helper()
	_, err := f.fetch(t, pod, http.MethodPost, path)
	require.NoError(t, err)
}

const webManifest = `{"apiVersion":"v1","kind":"List","items":[
	{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"web"},
		"ports":[{"name":"http","port":80,"targetPort":"http"},{"name":"udp","port":5000,"protocol":"UDP"}]}},
	{"apiVersion":"v1","kind":"Service","metadata":{"name":"peers"},"spec":{"selector":{"app":"web"},"clusterIP":"None",
		"publishNotReadyAddresses":true,"ports":[{"name":"http","port":8080,"targetPort":"http"}]}},
	{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"web"},"spec":{"replicas":2,"serviceName":"peers",
		"podManagementPolicy":"Parallel","selector":{"matchLabels":{"app":"web"}},
		"template":{"metadata":{"labels":{"app":"web"}},"spec":{"terminationGracePeriodSeconds":5,"containers":[
			{"name":"main","image":"test/server:1","ports":[{"name":"http","containerPort":8080}],
				"readinessProbe":{"httpGet":{"path":"/readyz","port":"http"},"periodSeconds":1,"failureThreshold":1}}]}}}}]}`

// web runs two servers behind a Service and a headless Service, and returns the namespace.
func (f *fixture) web(t *testing.T) string {
	t.Helper()
	namespace := f.namespace(t)
	begun := time.Now()
	f.apply(t, namespace, strings.ReplaceAll(webManifest, `"port":80,`, `"port":8000,`))
	for _, name := range []string{"web-0", "web-1"} {
		f.pod(t, namespace, name, ready)
	}
	t.Logf("two pods were ready %s after they were applied", time.Since(begun).Round(time.Millisecond))
	return namespace
}

// answering returns which pods answer at an address in forty connections.
func answering(t *testing.T, address string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for range 40 {
		name, err := fetch(t, http.MethodGet, "http://"+address+"/name")
		if err != nil {
			name = "nobody"
		}
		names[name] = true
	}
	return names
}

func TestServiceFollowsItsEndpoints(t *testing.T) {
	f := useCluster(t)
	namespace := f.web(t)
	address := f.run(t, "endpoint", namespace+"/web", "http")
	require.Equal(t, address, f.run(t, "endpoint", namespace+"/web", "8000"))
	_, err := f.try(t, "endpoint", "--dir", string(f.dir), namespace+"/web", "nothing")
	require.Error(t, err)
	expect := func(what string, want map[string]bool) {
		eventually(t, what, func() string {
			got := answering(t, address)
			return unless(fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("%v answer", got))
		})
	}
	expect("both pods", map[string]bool{"web-0": true, "web-1": true})
	zero := f.pod(t, namespace, "web-0", ready)
	f.post(t, zero, "/unready")
	expect("the ready pod only", map[string]bool{"web-1": true})
	// A frozen process is not ready either.
	f.run(t, "signal", namespace+"/web-1", "STOP")
	f.pod(t, namespace, "web-1", unready)
	expect("no pod", map[string]bool{"nobody": true})
	f.run(t, "signal", namespace+"/web-1", "CONT")
	expect("the thawed pod", map[string]bool{"web-1": true})
	f.post(t, zero, "/ready")
	expect("both again", map[string]bool{"web-0": true, "web-1": true})
}

func TestDNSKnowsServicesAndPods(t *testing.T) {
	f := useCluster(t)
	namespace := f.web(t)
	zero, one := f.pod(t, namespace, "web-0", ready), f.pod(t, namespace, "web-1", ready)
	f.post(t, zero, "/unready")
	f.pod(t, namespace, "web-0", unready)
	server := f.get(t, zero, "/env?name=LOCAL_DNS_ADDRESS")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, protocol, server)
	}}
	domain := "." + namespace + ".svc.cluster.local."
	_, records, err := resolver.LookupSRV(t.Context(), "", "", "peers"+domain)
	require.NoError(t, err)
	targets := map[string]uint16{}
	for _, record := range records {
		targets[record.Target] = record.Port
	}
	require.Equal(t, map[string]uint16{"web-0.peers" + domain: 8080, "web-1.peers" + domain: 8080}, targets,
		"publishNotReadyAddresses shows pods that are not ready")
	addresses, err := resolver.LookupHost(t.Context(), "web-1.peers"+domain)
	require.NoError(t, err)
	require.Equal(t, []string{one.Status.PodIP}, addresses)
	service, err := f.client.CoreV1().Services(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	require.NoError(t, err)
	addresses, err = resolver.LookupHost(t.Context(), "web"+domain)
	require.NoError(t, err)
	require.Equal(t, []string{service.Spec.ClusterIP}, addresses)
}

func TestPodsReachOneAnotherThroughTheProxy(t *testing.T) {
	f := useCluster(t)
	namespace := f.web(t)
	zero, one := f.pod(t, namespace, "web-0", ready), f.pod(t, namespace, "web-1", ready)
	require.Equal(t, "web-1", f.get(t, zero, "/fetch?url="+url.QueryEscape("http://"+one.Status.PodIP+":8080/name")))
	name := f.get(t, zero, "/fetch?url="+url.QueryEscape("http://web."+namespace+".svc.cluster.local:8000/name"))
	require.Contains(t, []string{"web-0", "web-1"}, name)
}

func TestServiceAccountsHaveTheirRightsAndLeaveATrace(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	kubectl := f.binary[:strings.LastIndex(f.binary, "/")] + "/kube kubectl"
	f.apply(t, namespace, `{"apiVersion":"v1","kind":"List","items":[
		{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"robot"}},
		{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"robot"},
			"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]},
		{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"robot"},
			"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"robot"},
			"subjects":[{"kind":"ServiceAccount","name":"robot","namespace":"`+namespace+`"}]}]}`)
	f.apply(t, namespace, strings.Replace(shellPod("robot",
		kubectl+" auth whoami -o jsonpath={.status.userInfo.username}; echo; "+kubectl+" get secrets; "+kubectl+" get configmaps -o name; exec sleep 1000"),
		`"spec":{`, `"spec":{"serviceAccountName":"robot",`, 1))
	f.pod(t, namespace, "robot", ready)
	user := "system:serviceaccount:" + namespace + ":robot"
	eventually(t, "what the pod may do", func() string {
		logs := f.kubectl(t, "logs", "-n", namespace, "robot")
		return unless(strings.Contains(logs, user) && strings.Contains(logs, "configmap/kube-root-ca.crt") &&
			strings.Contains(logs, "secrets is forbidden"), "it prints "+logs)
	})
	eventually(t, "the audit log", func() string {
		content, err := os.ReadFile(f.dir.AuditLog())
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(content)) {
			require.Contains(t, line, `"username":"system:serviceaccount:`, "only service accounts are recorded")
		}
		return unless(strings.Contains(string(content), `"resource":"configmaps"`) && strings.Contains(string(content), user), "no trace")
	})
}
