package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestWhatIsAcceptedCanBeDecoded walks the schema of the CRD together with the Go types. At every node it tries values of
// all kinds: what the API server accepts there, the operator must be able to decode. A value is decodable when its parts
// are, so nothing that is accepted as a whole is left out.
func TestWhatIsAcceptedCanBeDecoded(t *testing.T) {
	w := &walker{t: t, random: rand.New(rand.NewPCG(1, 2))}
	for _, part := range []struct {
		resource, name string
		t              reflect.Type
	}{
		{"emqxes", "spec", reflect.TypeFor[v2beta1.EMQXSpec]()}, {"emqxes", "status", reflect.TypeFor[v2beta1.EMQXStatus]()},
		{"rebalances", "spec", reflect.TypeFor[v2beta1.RebalanceSpec]()}, {"rebalances", "status", reflect.TypeFor[v2beta1.RebalanceStatus]()},
	} {
		props := schemaOf(t, part.resource).Properties[part.name]
		w.walk(part.resource+"."+part.name, &props, part.t)
	}
	require.Greater(t, w.nodes, 1000, "the walk has seen the schema")
	require.Greater(t, w.accepted, w.nodes, "values were accepted at all")
	slices.Sort(w.wrong)
	require.Empty(t, w.wrong, "%d forms are accepted and cannot be decoded:\n%s", len(w.wrong), strings.Join(w.wrong, "\n"))
}

// schemaOf is the schema of the version of a resource's CRD.
func schemaOf(t *testing.T, resource string) *apiextensions.JSONSchemaProps {
	t.Helper()
	data, err := os.ReadFile("../../manifests/base/crd/apps.emqx.io_" + resource + ".yaml")
	require.NoError(t, err)
	var crd apiextensionsv1.CustomResourceDefinition
	require.NoError(t, yaml.Unmarshal(data, &crd))
	var schema apiextensions.JSONSchemaProps
	require.NoError(t, apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &schema, nil))
	return &schema
}

// endless is a number whose exponent is so large that computing its value takes from seconds to for ever.
var endless = regexp.MustCompile(`^"[^"]*[eE][+-]?[0-9]{4,}"$`)

type walker struct {
	t        *testing.T
	random   *rand.Rand
	nodes    int
	accepted int
	wrong    []string
}

func (w *walker) walk(path string, props *apiextensions.JSONSchemaProps, goType reflect.Type) {
	for goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	w.nodes++
	w.try(path, props, goType)
	if reflect.PointerTo(goType).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return
	}
	switch goType.Kind() {
	case reflect.Struct:
		for name, field := range fieldsOf(goType) {
			if child, ok := props.Properties[name]; ok {
				w.walk(path+"."+name, &child, field)
			}
		}
	case reflect.Slice:
		if props.Items != nil && goType.Elem().Kind() != reflect.Uint8 {
			w.walk(path+"[]", props.Items.Schema, goType.Elem())
		}
	case reflect.Map:
		if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
			w.walk(path+"{}", props.AdditionalProperties.Schema, goType.Elem())
		}
	default: // There is nothing below.
	}
}

// fieldsOf are the fields of a struct by their JSON names, those of inlined structs too.
func fieldsOf(goType reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(goType) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = field.Type
		}
	}
	return fields
}

// try puts all kinds of values at a node.
func (w *walker) try(path string, props *apiextensions.JSONSchemaProps, goType reflect.Type) {
	structural, err := structuralschema.NewStructural(props)
	require.NoError(w.t, err, path)
	validator, _, err := validation.NewSchemaValidator(props)
	require.NoError(w.t, err, path)
	for _, text := range w.candidates(goType) {
		var value any
		require.NoError(w.t, utiljson.Unmarshal([]byte(text), &value), text)
		// What a request or etcd holds is pruned before it is validated and served, and a null that is not allowed is dropped.
		holder := map[string]any{"x": value}
		within := &structuralschema.Structural{Properties: map[string]structuralschema.Structural{"x": *structural}}
		pruning.Prune(holder, within, false)
		defaulting.PruneNonNullableNullsWithoutDefaults(holder, within)
		value, left := holder["x"]
		if !left || len(validation.ValidateCustomResource(nil, value, validator)) > 0 {
			continue
		}
		w.accepted++
		served, err := json.Marshal(value)
		require.NoError(w.t, err)
		if goType == reflect.TypeFor[resource.Quantity]() && endless.Match(served) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s: decoding it does not end", path, served))
			continue
		}
		if err := utiljson.Unmarshal(served, reflect.New(goType).Interface()); err != nil {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s: %v", path, served, err))
		}
	}
}

// candidates are values that might go where a type is decoded.
func (w *walker) candidates(goType reflect.Type) []string {
	values := []string{
		`true`, `null`, `0`, `1`, `-1`, `1.5`, `1.0`, `2147483647`, `2147483648`, `-2147483649`, `4294967296`, `9223372036854775807`,
		`9223372036854775808`, `-9223372036854775809`, `1e20`, `1e30`, `1e-30`, `1e300`, `""`, `"x"`, `"1"`, `"true"`, `"-"`, `"1.5e3.5"`,
		`[]`, `[true]`, `[1]`, `[null]`, `["x"]`, `[{}]`, `[[]]`, `{}`, `{"a":true}`, `{"a":null}`, `{"a":1}`, `{"a":"x"}`, `{"a":{}}`, `{"a":[]}`,
	}
	switch {
	case goType == reflect.TypeFor[metav1.Time](), goType == reflect.TypeFor[metav1.MicroTime]():
		values = append(values, `"2026-01-02T03:04:05Z"`, `"2026-01-02T03:04:05.678Z"`, `"2026-01-02T03:04:05.678901Z"`, `"2026-01-02T03:04:05.678901234Z"`, `"2024-02-29T03:04:05Z"`, `"2025-02-29T03:04:05Z"`, `"2026-01-02T03:04:05+01:00"`, `"2026-01-02t03:04:05z"`,
			`"2026-01-02 03:04:05Z"`, `"2026-01-02T03:04:05"`, `"2026-01-02"`, `"2026-13-02T03:04:05Z"`, `"2026-02-30T03:04:05Z"`, `"2026-01-02T24:00:00Z"`,
			`"2026-01-02T03:04:60Z"`, `"2026-01-02T03:04:05,5Z"`, `"2026-01-02T03:04:05+0100"`, `"2026-01-02T03:04:05+25:00"`, `"2026-01-02T03:04Z"`, `"20260102T030405Z"`)
	case goType.Kind() == reflect.Struct && !reflect.PointerTo(goType).Implements(reflect.TypeFor[json.Unmarshaler]()):
		for name := range fieldsOf(goType) {
			for _, value := range []string{`true`, `1`, `"x"`, `[true]`, `{"a":true}`, `{"a":{}}`} {
				values = append(values, fmt.Sprintf(`{%q:%s}`, name, value))
			}
		}
	case goType.Kind() == reflect.Struct && goType != reflect.TypeFor[intstr.IntOrString]():
		// Of what decodes itself from a text, any text may be wrong: numbers with units are tried at random.
		values = append(values, `"1e99"`, `"1e-99"`, `"1E9999999999999999999"`, `"1e+"`, `"1Ki"`, `"1.Ki"`, `".5"`, `"."`, `"+1"`, `"1kk"`, `"999999999999999999999999Ei"`)
		for range 300 {
			values = append(values, `"`+w.text("0123456789", "+-.eEKMi", 12)+`"`)
		}
	}
	return values
}

// text is a text of letters of two alphabets, at most so long.
func (w *walker) text(often, seldom string, length int) string {
	var text strings.Builder
	for range w.random.IntN(length) + 1 {
		alphabet := often
		if w.random.IntN(3) == 0 {
			alphabet = seldom
		}
		text.WriteByte(alphabet[w.random.IntN(len(alphabet))])
	}
	return text.String()
}
