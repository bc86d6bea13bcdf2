#!/usr/bin/env bash
# real-nodes.sh packages|build: makes the tests on real nodes possible where they are, and says why not elsewhere, where they
# are skipped. `packages` installs Debian's packages; `build` builds the programs when the packages are there.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(containerd runc containernetworking-plugins nftables iptables conntrack busybox-static socat)

skip() { echo "real nodes: SKIPPED: $1"; exit 0; }

missing() {
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || printf '%s ' "$package"
  done
}

[ "$(id -u)" = 0 ] || skip "they need root"
command -v dpkg-query >/dev/null || skip "they need Debian's packages ${packages[*]}"
case $1 in
packages)
  [ -n "$(missing)" ] || exit 0
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${packages[@]}"; } >/dev/null ||
    skip "the packages $(missing)cannot be installed"
  ;;
build)
  [ -z "$(missing)" ] || skip "the packages $(missing)are missing; make node-packages installs them"
  make build-node
  ;;
esac
