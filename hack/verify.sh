#!/usr/bin/env bash
# Fails when something generated is stale or a module is not tidy. It works on a copy: the checkout stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar --exclude=./bin --exclude=./.cluster --exclude=./.git -cf - . | tar -C "$copy" -xf -
(cd "$copy" && hack/generate.sh && go mod tidy && (cd e2e && go mod tidy) && (cd e2e/addons && go mod tidy) && (cd hack/tools && go mod tidy))
rm -rf "$copy/bin" "$copy/hack/tools/scratch"
if ! diff -r --exclude=bin --exclude=.cluster --exclude=.git --exclude=scratch . "$copy"; then
  echo "verify: generated files or modules are stale: run make generate tidy" >&2
  exit 1
fi
echo "verify: everything generated is up to date"
