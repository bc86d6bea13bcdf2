package controlplane

import (
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// auditPolicy records what workloads ask of kube-apiserver, and not what the control plane asks.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// WriteFiles makes the directory's keys, certificates, kubeconfigs and configuration. The state must have its slot and
// ports.
func WriteFiles(dir state.Dir, s *state.State, now time.Time) error {
	for _, sub := range []string{dir.PKI(""), dir.Path("run"), dir.Path("etcd"), dir.Pods(), dir.PodLogs()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return fmt.Errorf("make the cluster's directory: %w", err)
		}
	}
	ca, pairs, err := writePKI(dir, s, now)
	if err != nil {
		return err
	}
	server := "https://" + s.Endpoint(s.Ports.APIServer)
	paths := map[string]string{
		dir.AdminKubeconfig():                            "admin",
		dir.AgentKubeconfig():                            "agent",
		dir.Path("run", "controller-manager.kubeconfig"): "controller-manager",
		dir.Path("run", "scheduler.kubeconfig"):          "scheduler",
	}
	for _, node := range s.RealNodes {
		paths[dir.Kubeconfig(node.Name)], paths[dir.Kubeconfig(KubeProxy)] = node.Name, KubeProxy
	}
	for path, user := range paths {
		config := kubeconfig(server, ca.pem, user, pairs[user])
		if err := clientcmd.WriteToFile(*config, path); err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", user, err)
		}
	}
	if err := os.WriteFile(dir.Path("run", "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("write the audit policy: %w", err)
	}
	return nil
}

func kubeconfig(server string, ca []byte, user string, pair keyPair) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters["local"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.certificate, ClientKeyData: pair.key}
	config.Contexts["local"] = &clientcmdapi.Context{Cluster: "local", AuthInfo: user}
	config.CurrentContext = "local"
	return config
}
