package scenarios

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const stalledPoll = 200 * time.Millisecond

func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }

// compareRights holds the requests that the API server saw of the operator against the rules of its roles: none may be
// missing, which the API server would have refused, and none may be there that nothing used.
func (c *installed) compareRights() {
	c.t.Helper()
	granted := map[string]bool{}
	text, err := os.ReadFile("../../manifests/base/rbac/role.yaml")
	require.NoError(c.t, err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbacv1.ClusterRole
		require.NoError(c.t, yaml.Unmarshal([]byte(document), &role))
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						granted[verb+" "+group+"/"+resource] = true
					}
				}
			}
		}
	}
	used := c.usedRights()
	for right := range granted {
		if !used[right] && !implied(right, used) {
			c.t.Errorf("the operator may %s and never does", right)
		}
	}
	for right := range used {
		if !granted[right] {
			c.t.Errorf("the operator does %s, which no rule of its roles allows", right)
		}
	}
	require.NotEmpty(c.t, used)
}

// implied are rights that need not show in the audit log: the creating of what is applied, which the API server asks for
// beside patch, the listing that client-go falls back to where an API server cannot stream lists, and the patching of an
// event that client-go finds to repeat itself.
func implied(right string, used map[string]bool) bool {
	if right == "patch events.k8s.io/events" {
		return used["create events.k8s.io/events"]
	}
	verb, resource, _ := strings.Cut(right, " ")
	switch verb {
	case "list":
		return used["watch "+resource]
	case "create":
		return used["patch "+resource]
	}
	return false
}

// usedRights are the verbs and resources of the operator's requests.
func (c *installed) usedRights() map[string]bool {
	c.t.Helper()
	used := map[string]bool{}
	for _, request := range c.requests() {
		used[request] = true
	}
	return used
}

// writes are the operator's requests that change something, except those for its lease.
func (c *installed) writes() []string {
	c.t.Helper()
	return slices.DeleteFunc(c.requests(), func(request string) bool {
		verb, resource, _ := strings.Cut(request, " ")
		return verb == "get" || verb == "list" || verb == "watch" || strings.HasSuffix(resource, "/leases")
	})
}

// requests reads the operator's requests from the API server's audit log, as verb and resource.
func (c *installed) requests() []string {
	c.t.Helper()
	log, err := os.Open(c.dir.Path("audit.log"))
	require.NoError(c.t, err)
	defer func() { _ = log.Close() }()
	var requests []string
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb      string `json:"verb"`
			User      struct{ Username string }
			ObjectRef *struct{ APIGroup, Resource, Subresource string }
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // The last line may be half written.
		}
		if event.User.Username != "system:serviceaccount:emqx-bg-operator-system:emqx-bg-operator" || event.ObjectRef == nil || event.ObjectRef.Resource == "" {
			continue
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		requests = append(requests, event.Verb+" "+event.ObjectRef.APIGroup+"/"+resource)
	}
	require.NoError(c.t, lines.Err())
	return requests
}
