// Package v2beta1 is the EMQX resource of the API group apps.emqx.io. It keeps the surface that users of EMQX on
// Kubernetes know and adds what a controlled blue-green upgrade needs.
//
// Defaults and validation stand in the schema, as markers on the fields. What has none is nil or zero when unset.
//
// +k8s:deepcopy-gen=package
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=com.github.emqx-bg.emqx-bg-operator.pkg.apis.apps.v2beta1
// +groupName=apps.emqx.io
package v2beta1
