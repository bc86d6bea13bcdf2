package schema

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// api judges a resource as the API server does.
type api struct {
	t          *testing.T
	structural *structuralschema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

func newAPI(t *testing.T, schema *apiextensions.JSONSchemaProps) *api {
	t.Helper()
	structural, err := structuralschema.NewStructural(schema)
	require.NoError(t, err)
	validator, _, err := validation.NewSchemaValidator(schema)
	require.NoError(t, err)
	return &api{t, structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
}

// refusal is why a specification is refused; empty when it is accepted. unknown are fields that strict clients refuse.
func (a *api) refusal(spec string) (refusal string, unknown []string) {
	a.t.Helper()
	object := map[string]any{"apiVersion": "apps.emqx.io/v2beta1", "kind": "EMQX", "metadata": map[string]any{"name": "emqx"}}
	var fields map[string]any
	require.NoError(a.t, yaml.Unmarshal([]byte(spec), &fields), spec)
	object["spec"] = normalized(fields)
	unknown = pruning.PruneWithOptions(object, a.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	defaulting.PruneNonNullableNullsWithoutDefaults(object, a.structural)
	defaulting.Default(object, a.structural)
	errs := validation.ValidateCustomResource(nil, object, a.validator)
	broken, _ := a.rules.Validate(context.Background(), nil, a.structural, object, nil, celconfig.RuntimeCELCostBudget)
	if errs = append(errs, broken...); len(errs) > 0 {
		return errs.ToAggregate().Error(), unknown
	}
	return "", unknown
}

// normalized has whole numbers be integers, as in the API server.
func normalized(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name := range value {
			value[name] = normalized(value[name])
		}
	case []any:
		for i := range value {
			value[i] = normalized(value[i])
		}
	case float64:
		if whole := int64(value); float64(whole) == value {
			return whole
		}
	}
	return value
}

func TestManifests(t *testing.T) {
	a := newAPI(t, schemaOf(t, "emqxes"))
	for _, test := range []struct{ reason, spec, refusal string }{
		{"the least", `{image: emqx/emqx:6.0.1}`, ""},
		{"metadata of templates may say what has no effect", `{image: e, coreTemplate: {metadata: {name: core, creationTimestamp: null, labels: {a: b}, annotations: {c: "true"}}},
			listenersServiceTemplate: {metadata: {name: listeners, namespace: 1, annotations: {c: d}}}}`, ""},
		{"an annotation of a template is text", `{image: e, listenersServiceTemplate: {metadata: {annotations: {a: true}}}}`, "spec.listenersServiceTemplate.metadata.annotations.a"},
		{"so is a label", `{image: e, replicantTemplate: {metadata: {labels: {a: 1}}}}`, "spec.replicantTemplate.metadata.labels.a"},
		{"quantities in all their forms", `{image: e, coreTemplate: {spec: {resources: {requests: {cpu: 500m, memory: 1.5Gi}, limits: {cpu: 2, memory: "2147483648", a.b/c: 1e3, d.e/f: "+.5"}}}}}`, ""},
		{"a quantity that takes for ever to compute", `{image: e, coreTemplate: {spec: {resources: {limits: {cpu: "1e999999999"}}}}}`, "spec.coreTemplate.spec.resources.limits.cpu"},
		{"a port by name and by number", `{image: e, coreTemplate: {spec: {livenessProbe: {httpGet: {port: dashboard}}, readinessProbe: {tcpSocket: {port: 1883}}}}}`, ""},
		{"a port beyond 32 bits", `{image: e, coreTemplate: {spec: {livenessProbe: {httpGet: {port: 4294967296}}}}}`, "spec.coreTemplate.spec.livenessProbe.httpGet.port"},
		{"the operator's second key", `{image: e, bootstrapAPIKeys: [{key: emqx-operator-controller-system, secret: secret}]}`, "key must not be emqx-operator-controller"},
		{"a CA, and nothing verified", `{image: e, apiTLS: {caSecretName: ca, insecureSkipVerify: true}}`, "with insecureSkipVerify nothing is verified"},
		{"the operator's own key", `{image: e, bootstrapAPIKeys: [{key: emqx-operator-controller, secret: secret}]}`, "key must not be emqx-operator-controller"},
		{"another key", `{image: e, bootstrapAPIKeys: [{key: robot, secret: secret}, {secretRef: {key: {secretName: a, secretKey: b}, secret: {secretName: a, secretKey: c}}}]}`, ""},
		{"a Service that leads elsewhere", `{image: e, listenersServiceTemplate: {spec: {type: ExternalName, externalName: example.com}}}`, "type must not be ExternalName"},
		{"a Service with a selector, as 2.x took", `{image: e, listenersServiceTemplate: {spec: {type: LoadBalancer, selector: {a: b}}}}`, ""},
		{"as many cores as there may be", `{image: e, coreTemplate: {spec: {replicas: 50}}, replicantTemplate: {spec: {replicas: 200}}}`, ""},
		{"more cores", `{image: e, coreTemplate: {spec: {replicas: 51}}}`, "replicas of core nodes must be at most 50"},
		{"more replicants", `{image: e, replicantTemplate: {spec: {replicas: 201}}}`, "spec.replicantTemplate.spec.replicas"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			refusal, unknown := a.refusal(test.spec)
			require.Empty(t, unknown)
			if test.refusal == "" {
				require.Empty(t, refusal)
			} else {
				require.Contains(t, refusal, test.refusal)
			}
		})
	}
}
