package realnode

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	containerdFile   = "containerd.toml"
	kubeletFile      = "kubelet.yaml"
	cniDir           = "cni"
	resolvFile       = "resolv.conf"
)

// containerdConfig is for containerd 1.6. Plugins that write outside of the node's directories, or lack something here, are off.
const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + cniPlugins + `"
    conf_dir = "%s"
`

// writeFiles writes the node's configuration.
func (n *Node) writeFiles() error {
	own := n.dir.Path(n.Name)
	kubelet, err := yaml.Marshal(n.kubeletConfig())
	if err != nil {
		return fmt.Errorf("write the configuration of kubelet: %w", err)
	}
	cni, err := json.Marshal(cniConfig(n.pods))
	if err != nil {
		return fmt.Errorf("write the configuration of CNI: %w", err)
	}
	for name, content := range map[string]string{
		containerdFile: fmt.Sprintf(containerdConfig, filepath.Join(own, cniDir)),
		kubeletFile:    string(kubelet),
		resolvFile:     "# Names outside of the cluster are not looked up.\n",
		filepath.Join(cniDir, "10-nodes.conflist"): string(cni),
	} {
		path := filepath.Join(own, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // pods' users pass it
			return fmt.Errorf("make the directory of %s: %w", n.Name, err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the configuration of %s: %w", n.Name, err)
		}
	}
	return nil
}

// cniConfig gives each pod a pair of interfaces and an address of the node's.
func cniConfig(pods netip.Prefix) map[string]any {
	return map[string]any{
		"cniVersion": "0.4.0", "name": "nodes",
		"plugins": []any{
			map[string]any{"type": "ptp", "ipMasq": false, "ipam": map[string]any{
				"type": "host-local", "dataDir": "/run/cni-addresses",
				"ranges": []any{[]any{map[string]any{"subnet": pods.String()}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			}},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}
}

func (n *Node) kubeletConfig() map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": false},
			"x509": map[string]any{"clientCAFile": n.dir.PKI("ca.crt")},
		},
		// Who has a client certificate may do everything here: that is kube-apiserver, and the nodes themselves.
		"authorization":            map[string]any{"mode": "AlwaysAllow"},
		"tlsCertFile":              n.dir.PKI(n.Name + ".crt"),
		"tlsPrivateKeyFile":        n.dir.PKI(n.Name + ".key"),
		"clusterDNS":               []any{dnsService().String()},
		"clusterDomain":            network.Domain,
		"resolvConf":               filepath.Join(n.dir.Path(n.Name), resolvFile),
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false,
		"failSwapOn":               false,
		// The process may not make itself less likely to be killed.
		"oomScoreAdj": 0,
		// How full the machine's disk is concerns nobody here, and images that are removed do not come back.
		"imageGCHighThresholdPercent": 100,
		"evictionHard":                map[string]any{"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
		// As fast as the machine can, since pods are what the tests wait for.
		"kubeAPIQPS": 100, "kubeAPIBurst": 200, "registryPullQPS": 0, "eventRecordQPS": 0,
		"serializeImagePulls": false,
	}
}
