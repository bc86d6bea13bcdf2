#!/usr/bin/env bash
# Prints linker flags that give bin/kube its version, as Kubernetes' own build does: that of its module in e2e/go.mod.
# Without them clients that parse the API server's version fail. The date is the module's, so builds stay reproducible.
set -euo pipefail
cd "$(dirname "$0")/../e2e"
read -r version date commit < <(go list -m -f \
  '{{.Version}} {{with .Time}}{{.UTC.Format "2006-01-02T15:04:05Z"}}{{else}}1970-01-01T00:00:00Z{{end}} {{with .Origin}}{{.Hash}}{{end}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  printf -- '-X %s=%s ' "$package.gitVersion" "$version" "$package.gitMajor" "$major" "$package.gitMinor" "$minor" \
    "$package.gitCommit" "$commit" "$package.gitTreeState" archive "$package.buildDate" "$date"
done
