// Package tools pins the tools that generate and check the code, and what the generated programs among them import.
package tools

import (
	_ "k8s.io/api/core/v1"
	_ "k8s.io/kube-openapi/pkg/common"
	_ "k8s.io/kube-openapi/pkg/validation/spec"

	_ "github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)
