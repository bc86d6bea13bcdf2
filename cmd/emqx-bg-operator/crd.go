package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/client-go/openapi"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// errNotPublished: the schema of EMQX resources is not there yet. It comes some time after the resource itself.
var errNotPublished = errors.New("the API server publishes no schema of EMQX resources")

// schema is as much of a published schema as is looked at.
type schema struct {
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Kinds      []struct {
		Group, Version, Kind string
	} `json:"x-kubernetes-group-version-kind"`
}

// missingFields names the fields of EMQX resources that the installed CRD does not have: the API server drops them without a
// word, and an operator that cannot write its phase begins every upgrade anew. Older CRDs of the same name, such as those of
// emqx-operator 2.x, are like that. The schema that is published is asked and not the CRD: every client may read it, also
// one whose rights end with its namespace.
func missingFields(client openapi.Client) ([]string, error) {
	paths, err := client.Paths()
	if err != nil {
		return nil, err
	}
	group, ok := paths["apis/"+v2beta1.SchemeGroupVersion.String()]
	if !ok {
		return nil, errNotPublished
	}
	data, err := group.Schema("application/json")
	if err != nil {
		return nil, err
	}
	var document struct {
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("read the schema of EMQX resources: %w", err)
	}
	for _, published := range document.Components.Schemas {
		for _, kind := range published.Kinds {
			if kind.Group == v2beta1.SchemeGroupVersion.Group && kind.Version == v2beta1.SchemeGroupVersion.Version && kind.Kind == v2beta1.Kind {
				return missingIn("", published, reflect.TypeFor[v2beta1.EMQX]()), nil
			}
		}
	}
	return nil, errNotPublished
}

// missingIn names the fields of a type of this project that a schema does not have. Of a field that is missing, those below
// are not named.
func missingIn(path string, published schema, t reflect.Type) []string {
	var missing []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "" && field.Type.PkgPath() == t.PkgPath():
			missing = append(missing, missingIn(path, published, field.Type)...) // Its fields are inlined.
			continue
		case name == "":
			continue
		}
		found, ok := published.Properties[name]
		if !ok {
			missing = append(missing, path+name)
			continue
		}
		of, within := field.Type, path+name
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			if of.Kind() == reflect.Slice && found.Items != nil {
				found, within = *found.Items, within+"[]"
			}
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && of.PkgPath() == t.PkgPath() {
			missing = append(missing, missingIn(within+".", found, of)...)
		}
	}
	return missing
}
