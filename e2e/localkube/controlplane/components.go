package controlplane

import (
	"path/filepath"
	"strconv"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// The cluster's components, in the order in which they are started.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	// Agent is the node agent, started from the cluster binary.
	Agent = "node-agent"
)

// KubeProxy is a program of real nodes.
const KubeProxy = "kube-proxy"

// Names lists the components in the order in which they are started.
func Names() []string { return []string{Etcd, APIServer, ControllerManager, Scheduler, Agent} }

// AgentCommand is the hidden command of the cluster binary that runs the node agent.
const AgentCommand = "node-agent"

// command returns the program and arguments of a component.
func command(dir state.Dir, s *state.State, component string) []string {
	switch component {
	case Etcd:
		return append([]string{s.KubeBinary, component}, etcdArguments(dir, s)...)
	case APIServer:
		return append([]string{s.KubeBinary, component}, apiServerArguments(dir, s)...)
	case ControllerManager:
		return append([]string{s.KubeBinary, component}, controllerManagerArguments(dir, s)...)
	case Scheduler:
		return append([]string{s.KubeBinary, component}, schedulerArguments(dir, s)...)
	default:
		return []string{s.ClusterBinary, AgentCommand, "--dir", string(dir)}
	}
}

func etcdArguments(dir state.Dir, s *state.State) []string {
	client := "http://" + s.Endpoint(s.Ports.EtcdClient)
	peer := "http://" + s.Endpoint(s.Ports.EtcdPeer)
	return []string{
		"--name=local",
		"--data-dir=" + dir.Path("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=local=" + peer,
		// The data need not survive a crash of the machine: after one, a new cluster is started.
		"--unsafe-no-fsync",
		"--quota-backend-bytes=" + strconv.Itoa(2<<30),
		"--auto-compaction-mode=periodic", "--auto-compaction-retention=10m",
		"--log-level=warn",
	}
}

func apiServerArguments(dir state.Dir, s *state.State) []string {
	control := s.ControlAddress().String()
	authorization := "RBAC"
	if len(s.RealNodes) > 0 {
		authorization = "Node,RBAC"
	}
	return []string{
		"--etcd-servers=http://" + s.Endpoint(s.Ports.EtcdClient),
		"--bind-address=" + control,
		"--secure-port=" + strconv.Itoa(int(s.Ports.APIServer)),
		// Endpoints may not be loopback addresses; this one stands for the control address, as pods' addresses do.
		"--advertise-address=" + s.Plan().Control().String(),
		"--service-cluster-ip-range=" + s.Plan().ServicePrefix().String(),
		"--tls-cert-file=" + dir.PKI("apiserver.crt"),
		"--tls-private-key-file=" + dir.PKI("apiserver.key"),
		"--client-ca-file=" + dir.PKI("ca.crt"),
		"--kubelet-certificate-authority=" + dir.PKI("ca.crt"),
		"--kubelet-client-certificate=" + dir.PKI("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + dir.PKI("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=" + authorization,
		"--enable-admission-plugins=" + admission(s),
		"--service-account-issuer=https://kubernetes.default.svc." + network.Domain,
		"--service-account-key-file=" + dir.PKI("service-account.pub"),
		"--service-account-signing-key-file=" + dir.PKI("service-account.key"),
		"--audit-policy-file=" + dir.Path("run", "audit-policy.yaml"),
		"--audit-log-path=" + dir.AuditLog(),
		"--audit-log-maxsize=256", "--audit-log-maxbackup=1",
		"--cert-dir=" + dir.Path("run"),
		"--profiling=false",
	}
}

// admission names the admission plugins beside those that are on by default.
func admission(s *state.State) string {
	if len(s.RealNodes) > 0 {
		return "NodeRestriction"
	}
	return ""
}

func controllerManagerArguments(dir state.Dir, s *state.State) []string {
	// All controllers but those that need a cloud or metrics, or without real nodes volumes that are attached or grow.
	controllers := "*,-horizontal-pod-autoscaler-controller,-node-ipam-controller," +
		"-resourceclaim-controller,-certificatesigningrequest-signing-controller," +
		"-certificatesigningrequest-approving-controller,-certificatesigningrequest-cleaner-controller," +
		"-selinux-warning-controller,-storage-version-migrator-controller"
	// The node's heartbeat comes every ten seconds; that a machine is too busy to send it is no reason to evict.
	grace := "3m"
	if len(s.RealNodes) == 0 {
		controllers += ",-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller"
	} else {
		grace = "40s" // A lost node is lost, and this is what Kubernetes does by itself.
	}
	return []string{
		"--kubeconfig=" + dir.Path("run", "controller-manager.kubeconfig"),
		"--bind-address=" + s.ControlAddress().String(),
		"--secure-port=" + strconv.Itoa(int(s.Ports.ControllerManager)),
		"--root-ca-file=" + dir.PKI("ca.crt"),
		"--service-account-private-key-file=" + dir.PKI("service-account.key"),
		"--cluster-name=local",
		"--controllers=" + controllers,
		"--leader-elect=false",
		// The controllers act as one user and not each as a service account, so that the audit log holds workloads only.
		"--use-service-account-credentials=false",
		"--kube-api-qps=300", "--kube-api-burst=600",
		"--node-monitor-grace-period=" + grace,
		"--profiling=false",
		"--cert-dir=" + dir.Path("run"),
	}
}

func schedulerArguments(dir state.Dir, s *state.State) []string {
	return []string{
		"--kubeconfig=" + dir.Path("run", "scheduler.kubeconfig"),
		"--authentication-kubeconfig=" + dir.Path("run", "scheduler.kubeconfig"),
		"--authorization-kubeconfig=" + dir.Path("run", "scheduler.kubeconfig"),
		"--bind-address=" + s.ControlAddress().String(),
		"--secure-port=" + strconv.Itoa(int(s.Ports.Scheduler)),
		"--leader-elect=false",
		"--profiling=false",
		"--cert-dir=" + dir.Path("run"),
	}
}

// BinDir is the directory of the cluster binary, where the other programs are looked for.
func BinDir(s *state.State) string { return filepath.Dir(s.ClusterBinary) }
