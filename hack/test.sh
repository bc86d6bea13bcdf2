#!/usr/bin/env bash
# Runs all tests and prints one closing summary. The argument is the number of upgrades to simulate.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/bin/tools
(cd hack/lint && GOBIN=$tools go install gotest.tools/gotestsum)
export SIM_RUNS=${1:-1000}
exec "$tools/gotestsum" --format pkgname --format-hide-empty-pkg --raw-command -- hack/test-json.sh
