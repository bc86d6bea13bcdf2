package informers

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/scheme"
)

// NewEMQXClient returns a client of EMQX resources and Rebalances that decodes each by itself. The generated one gives up a list, and with
// it the watch of all clusters, for one resource that it cannot decode: the API server may hold some that were stored before
// its schema was as strict as it is.
func NewEMQXClient(config *rest.Config) (versioned.Interface, error) {
	config = rest.CopyConfig(config)
	group := v2beta1.SchemeGroupVersion
	config.GroupVersion, config.APIPath = &group, "/apis"
	config.NegotiatedSerializer = eachByItself{rest.CodecFactoryForGeneratedClient(scheme.Scheme, scheme.Codecs).WithoutConversion()}
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return versioned.New(client), nil
}

type eachByItself struct{ runtime.NegotiatedSerializer }

// DecoderToVersion is asked for what decodes answers, and the objects in the events of a watch.
func (s eachByItself) DecoderToVersion(decoder runtime.Decoder, version runtime.GroupVersioner) runtime.Decoder {
	return decoderOfEach{s.NegotiatedSerializer.DecoderToVersion(decoder, version)}
}

type decoderOfEach struct{ runtime.Decoder }

// Decode decodes what the operator's types take as ever. Of a resource that they do not take it decodes the metadata and the status,
// of a Rebalance also which cluster it names, and notes why in an annotation.
func (d decoderOfEach) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	var object runtime.Object
	var kind *schema.GroupVersionKind
	err := errEndless
	if !mayBeEndless.Match(data) {
		object, kind, err = d.Decoder.Decode(data, defaults, into)
	}
	if err == nil {
		unmark(object)
		return object, kind, nil
	}
	var raw document
	if json.Unmarshal(data, &raw) != nil || raw.APIVersion != v2beta1.SchemeGroupVersion.String() {
		return d.Decoder.Decode(data, defaults, into)
	}
	found := raw.GroupVersionKind()
	switch raw.Kind {
	case v2beta1.Kind:
		decoded, ok := into.(*v2beta1.EMQX)
		if !ok {
			decoded = &v2beta1.EMQX{}
		}
		return decoded, &found, d.resource(data, raw, decoded)
	case v2beta1.Kind + "List":
		decoded, ok := into.(*v2beta1.EMQXList)
		if !ok {
			decoded = &v2beta1.EMQXList{}
		}
		var err error
		decoded.ListMeta, decoded.Items, err = listOf(data, d.resource)
		return decoded, &found, err
	case v2beta1.KindRebalance:
		decoded, ok := into.(*v2beta1.Rebalance)
		if !ok {
			decoded = &v2beta1.Rebalance{}
		}
		return decoded, &found, d.rebalance(data, raw, decoded)
	case v2beta1.KindRebalance + "List":
		decoded, ok := into.(*v2beta1.RebalanceList)
		if !ok {
			decoded = &v2beta1.RebalanceList{}
		}
		var err error
		decoded.ListMeta, decoded.Items, err = listOf(data, d.rebalance)
		return decoded, &found, err
	}
	return d.Decoder.Decode(data, defaults, into)
}

// document is a resource whose parts are not decoded yet.
type document struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        json.RawMessage `json:"metadata"`
	Spec            json.RawMessage `json:"spec"`
	Status          json.RawMessage `json:"status"`
}

// listOf decodes the items of a list each by itself.
func listOf[T any](data []byte, decode func([]byte, document, *T) error) (metav1.ListMeta, []T, error) {
	var raw struct {
		Metadata metav1.ListMeta   `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return raw.Metadata, nil, err
	}
	items := make([]T, len(raw.Items))
	for i, item := range raw.Items {
		var parts document
		if err := json.Unmarshal(item, &parts); err != nil {
			return raw.Metadata, nil, err
		}
		if err := decode(item, parts, &items[i]); err != nil {
			return raw.Metadata, nil, err
		}
	}
	return raw.Metadata, items, nil
}

// rebalance decodes one Rebalance as far as it can be decoded.
func (d decoderOfEach) rebalance(data []byte, raw document, into *v2beta1.Rebalance) error {
	kind := v2beta1.SchemeGroupVersion.WithKind(v2beta1.KindRebalance)
	*into = v2beta1.Rebalance{}
	_, _, err := d.Decoder.Decode(data, &kind, into)
	if err == nil {
		unmark(into)
		return nil
	}
	*into = v2beta1.Rebalance{}
	if err := json.Unmarshal(raw.Metadata, &into.ObjectMeta); err != nil {
		return fmt.Errorf("decode the metadata of a Rebalance: %w", err)
	}
	if json.Unmarshal(raw.Status, &into.Status) != nil {
		into.Status = v2beta1.RebalanceStatus{} // Half of it would be no status that ever was.
	}
	var spec struct {
		InstanceName string `json:"instanceName"`
	}
	if json.Unmarshal(raw.Spec, &spec) == nil {
		into.Spec.InstanceName = spec.InstanceName
	}
	metav1.SetMetaDataAnnotation(&into.ObjectMeta, v2beta1.AnnotationUndecodable, strings.TrimPrefix(err.Error(), "json: "))
	return nil
}

// resource decodes one resource as far as it can be decoded. Metadata always can: the API server checks it itself.
func (d decoderOfEach) resource(data []byte, raw document, into *v2beta1.EMQX) error {
	var value any
	err := json.Unmarshal(raw.Spec, &value)
	switch {
	case len(raw.Spec) > 0 && err == nil && endless(value, reflect.TypeFor[v2beta1.EMQXSpec]()):
		err = errEndless
	default:
		kind := v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind)
		*into = v2beta1.EMQX{}
		if _, _, err = d.Decoder.Decode(data, &kind, into); err == nil {
			unmark(into)
			return nil
		}
	}
	*into = v2beta1.EMQX{}
	if err := json.Unmarshal(raw.Metadata, &into.ObjectMeta); err != nil {
		return fmt.Errorf("decode the metadata of an EMQX resource: %w", err)
	}
	if json.Unmarshal(raw.Status, &into.Status) != nil {
		into.Status = v2beta1.EMQXStatus{} // Half of it would be no status that ever was.
	}
	metav1.SetMetaDataAnnotation(&into.ObjectMeta, v2beta1.AnnotationUndecodable, strings.TrimPrefix(err.Error(), "json: "))
	return nil
}

// unmark takes the note off that only the decoder makes.
func unmark(object runtime.Object) {
	switch object := object.(type) {
	case *v2beta1.EMQX:
		delete(object.Annotations, v2beta1.AnnotationUndecodable)
	case *v2beta1.EMQXList:
		for i := range object.Items {
			delete(object.Items[i].Annotations, v2beta1.AnnotationUndecodable)
		}
	case *v2beta1.Rebalance:
		delete(object.Annotations, v2beta1.AnnotationUndecodable)
	case *v2beta1.RebalanceList:
		for i := range object.Items {
			delete(object.Items[i].Annotations, v2beta1.AnnotationUndecodable)
		}
	}
}

// mayBeEndless finds numbers with exponents beyond those of any quantity: to decode a quantity is to compute its value, which
// takes from seconds to for ever.
var mayBeEndless = regexp.MustCompile(`[0-9.][eE][+-]?[0-9]{4,}"`)

var errEndless = errors.New("a quantity has an exponent of more than three digits")

// endless reports whether such a number is where a type has a quantity.
func endless(value any, t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := value.(type) {
	case string:
		return t == reflect.TypeFor[resource.Quantity]() && mayBeEndless.MatchString(value+`"`)
	case []any:
		if t.Kind() != reflect.Slice {
			return false
		}
		for _, item := range value {
			if endless(item, t.Elem()) {
				return true
			}
		}
	case map[string]any:
		return endlessWithin(value, t)
	}
	return false
}

func endlessWithin(object map[string]any, t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Map:
		for _, item := range object {
			if endless(item, t.Elem()) {
				return true
			}
		}
	case reflect.Struct:
		for _, field := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if item, ok := object[name]; ok && endless(item, field.Type) {
				return true
			}
		}
	default: // An object in the place of anything else cannot be decoded.
	}
	return false
}
