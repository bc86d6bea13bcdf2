package main

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// published is an API server that publishes the schema of a CRD.
type published struct {
	discovery.ServerResourcesInterface
	root    map[string]any // Nil for none.
	alone   bool           // Whether Rebalances are not known.
	unknown bool           // Whether the resource is not known either.
	failure error          // Why the schema cannot be read.
	asked   int
}

func (p *published) ServerResourcesForGroupVersion(string) (*metav1.APIResourceList, error) {
	p.asked++
	if p.unknown {
		return nil, apierrors.NewNotFound(runtimeschema.GroupResource{}, "apps.emqx.io")
	}
	if p.alone {
		return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Kind: v2beta1.Kind}}}, nil
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Kind: v2beta1.Kind}, {Kind: v2beta1.KindRebalance}}}, nil
}

func (p *published) OpenAPIV3() openapi.Client { return p }

func (p *published) Paths() (map[string]openapi.GroupVersion, error) {
	if p.failure != nil || p.root == nil {
		return nil, p.failure
	}
	return map[string]openapi.GroupVersion{"apis/apps.emqx.io/v2beta1": p}, nil
}

func (p *published) ServerRelativeURL() string { return "" }

func (p *published) Schema(string) ([]byte, error) {
	p.root["x-kubernetes-group-version-kind"] = []any{map[string]any{"group": "apps.emqx.io", "version": "v2beta1", "kind": v2beta1.Kind}}
	return json.Marshal(map[string]any{"components": map[string]any{"schemas": map[string]any{"io.emqx.apps.v2beta1.EMQX": p.root, "other": map[string]any{}}}})
}

// crd is the schema of this version's CRD without some fields.
func crd(t *testing.T, without ...[]string) map[string]any {
	t.Helper()
	data, err := os.ReadFile("../../manifests/base/crd/apps.emqx.io_emqxes.yaml")
	require.NoError(t, err)
	var document struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					Root map[string]any `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(data, &document))
	root := document.Spec.Versions[0].Schema.Root
	for _, path := range without {
		at := root
		for _, name := range path[:len(path)-1] {
			if name == "[]" {
				at = at["items"].(map[string]any)
				continue
			}
			at = at["properties"].(map[string]any)[name].(map[string]any)
		}
		delete(at["properties"].(map[string]any), path[len(path)-1])
	}
	return root
}

func TestPreflight(t *testing.T) {
	for _, test := range []struct {
		reason string
		api    *published
		want   []string
	}{
		{"all is there", &published{root: crd(t)}, nil},
		{"no CRD", &published{unknown: true}, []string{"does not know EMQX resources", "kubectl apply -k manifests/"}},
		{"no CRD of Rebalances", &published{root: crd(t), alone: true}, []string{"does not know Rebalances", "kubectl apply -k manifests/"}},
		{"the CRD of another operator", &published{root: crd(t, []string{"status", "phase"}, []string{"spec", "updateStrategy", "paused"}, []string{"status", "coreNodes", "[]", "lastSeenTime"})},
			[]string{"status.phase", "spec.updateStrategy.paused", "status.coreNodes[].lastSeenTime", "kubectl apply -k manifests/"}},
		{"a CRD without a status", &published{root: crd(t, []string{"status"})}, []string{"lacks fields that this one writes or reads: status;"}},
		{"a schema that may not be read stops nobody", &published{failure: errors.New("forbidden")}, nil},
		{"a schema that is not published stops nobody", &published{}, nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := preflight(t.Context(), test.api)
				if test.want == nil {
					require.NoError(t, err)
					return
				}
				require.Greater(t, test.api.asked, 10, "a CRD that was just applied may take a while")
				for _, words := range test.want {
					require.ErrorContains(t, err, words)
				}
			})
		})
	}
}
