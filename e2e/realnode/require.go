package realnode

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

const (
	// cniPlugins is where Debian puts the plugins.
	cniPlugins = "/usr/lib/cni"
	// busyboxBinary is Debian's busybox, when it is the static one.
	busyboxBinary = "/bin/busybox"
)

// Lacking says what this machine, or the directory with the programs of this project, lacks to have real nodes; nothing when
// it can.
func Lacking(bin string) []string {
	lacking := box.Lacking()
	for _, program := range []string{"containerd", "ctr", "runc", "nft", "iptables", "conntrack", "socat"} {
		if _, err := exec.LookPath(program); err != nil {
			lacking = append(lacking, program)
		}
	}
	for _, path := range []string{filepath.Join(cniPlugins, "ptp"), busyboxBinary} {
		if _, err := os.Stat(path); err != nil {
			lacking = append(lacking, path)
		}
	}
	for _, program := range programs() {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			lacking = append(lacking, "bin/"+program+" (make build-node)")
		}
	}
	return lacking
}

// programs are those of this project that real nodes need, by their paths in bin/.
func programs() []string {
	return []string{"cluster", "kube", "kubenode", "emqx-bg-operator", coreDNSBinary, provisionerBinary, standInBinary}
}

const (
	coreDNSBinary     = "addons/coredns"
	provisionerBinary = "addons/provisioner"
	standInBinary     = "addons/emqx"
)
