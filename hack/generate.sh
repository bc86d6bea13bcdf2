#!/usr/bin/env bash
# Rebuilds everything that is derived from code: deep copies, clientset, listers, informers, apply configurations, the
# CRD, the RBAC rules and two pages of the documentation. `make generate` runs it; `make verify` runs it and fails when
# something changed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
module=github.com/emqx-bg/emqx-bg-operator
apis=pkg/apis/apps/v2beta1
out=pkg/generated
tools=$root/bin/tools
scratch=$root/hack/tools/scratch # Inside the module of the tools, so that what is made on the way can be compiled; ignored by git.

(cd hack/tools && GOBIN=$tools go install tool)
rm -rf "$out" "$scratch"
mkdir -p "$scratch/openapi" "$scratch/schema"
common=(--go-header-file hack/boilerplate.go.txt)

"$tools/deepcopy-gen" "${common[@]}" --output-file zz_generated.deepcopy.go "./$apis"

# The apply configurations carry the schema of the types, which comes from their OpenAPI models.
"$tools/openapi-gen" "${common[@]}" --output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go \
  --output-dir "$scratch/openapi" --output-pkg "$module/hack/tools/scratch/openapi" --report-filename /dev/null \
  --readonly-pkg k8s.io/api/core/v1 --readonly-pkg k8s.io/apimachinery/pkg/apis/meta/v1 \
  --readonly-pkg k8s.io/apimachinery/pkg/runtime --readonly-pkg k8s.io/apimachinery/pkg/version \
  --readonly-pkg k8s.io/apimachinery/pkg/api/resource --readonly-pkg k8s.io/apimachinery/pkg/util/intstr \
  k8s.io/api/core/v1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version \
  k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr "./$apis"
cp hack/schema.go.txt "$scratch/schema/main.go"
(cd hack/tools && go run ./scratch/schema) > "$scratch/schema.json"

"$tools/applyconfiguration-gen" "${common[@]}" --output-dir "$out/applyconfiguration" \
  --output-pkg "$module/$out/applyconfiguration" --openapi-schema "$scratch/schema.json" "$module/$apis"
"$tools/client-gen" "${common[@]}" --clientset-name versioned --input-base "$module/pkg/apis" --input apps/v2beta1 \
  --output-dir "$out/clientset" --output-pkg "$module/$out/clientset" \
  --apply-configuration-package "$module/$out/applyconfiguration" --plural-exceptions EMQX:EMQXes
"$tools/lister-gen" "${common[@]}" --output-dir "$out/listers" --output-pkg "$module/$out/listers" \
  --plural-exceptions EMQX:EMQXes "$module/$apis"
"$tools/informer-gen" "${common[@]}" --versioned-clientset-package "$module/$out/clientset/versioned" \
  --listers-package "$module/$out/listers" --output-dir "$out/informers" --output-pkg "$module/$out/informers" \
  --plural-exceptions EMQX:EMQXes "$module/$apis"

mkdir -p manifests/base/crd manifests/base/rbac
"$tools/controller-gen" crd:ignoreUnexportedFields=true paths="./$apis" output:crd:dir="$scratch/crd"
for crd in emqxes rebalances; do
  (cd hack/tools && go run ./trimcrd "$scratch/crd/apps.emqx.io_$crd.yaml") > "manifests/base/crd/apps.emqx.io_$crd.yaml"
done
"$tools/controller-gen" rbac:roleName=emqx-bg-operator paths="./pkg/...;./cmd/..." output:rbac:dir="$scratch/rbac"
# The Role in the operator's own namespace gets a name of its own: manifests/single-namespace has two Roles in one.
sed '/^kind: Role$/,$ s/^  name: emqx-bg-operator$/  name: emqx-bg-operator-leader-election/' "$scratch/rbac/role.yaml" > manifests/base/rbac/role.yaml
rm -rf "$scratch"
go run ./hack/docs reference > docs/reference.md
go run ./hack/docs metrics > docs/metrics.md
